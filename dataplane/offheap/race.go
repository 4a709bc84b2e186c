//go:build race

package offheap

const race = true
