package steer

// The objects are committed, so that building needs no clang. Generating needs clang, llvm-strip and libbpf's
// headers; -Werror because a warning in a program that sees every frame is never harmless.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cflags "-O2 -Wall -Wextra -Werror" -type reason -type role steer bpf/steer.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cflags "-O2 -Wall -Wextra -Werror" -type decap_reason decap bpf/decap.c
