package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"xlvs/control/config"
	"xlvs/control/offline"
	"xlvs/dataplane/pcapio"
)

// replayFlags are the flags of xlvs replay.
type replayFlags struct {
	config, in, out, verdicts string
	down                      []string
}

func replayCmd() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay -c FILE --in CAPTURE --out CAPTURE", Short: "Run a capture through the director, offline", Args: noArgs,
		Long: "Run a capture through the same engine and pipeline as in production, with no interface and no privileges, and write\n" +
			"what the director would send. Both formats, pcap and pcapng, are read and written. docs/replay.md has the details.",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needConfig(c, f.config); err != nil {
				return err
			}
			if f.in == "" || f.out == "" {
				return usageError{errors.New("replay needs a capture to read and one to write: --in FILE --out FILE")}
			}
			return f.run(c)
		},
	}
	configFlag(cmd, &f.config)
	cmd.Flags().StringVar(&f.in, "in", "", "capture to read, pcap or pcapng, gzip'd or not (required)")
	cmd.Flags().StringVar(&f.out, "out", "", "capture to write; .pcap or .pcapng says which format (required)")
	cmd.Flags().StringVar(&f.verdicts, "verdicts", "", "write a JSON object for each packet of the input to `FILE`")
	downFlag(cmd, &f.down)
	return cmd
}

// downFlag adds --down to a command that works offline.
func downFlag(c *cobra.Command, down *[]string) {
	c.Flags().StringSliceVar(down, "down", nil, "`BACKEND` (or SERVICE/BACKEND) that is down; may be repeated")
}

// offlineDirector starts a director that has no interfaces. Names that fit nothing are wrong usage.
func offlineDirector(c *cobra.Command, file string, down []string) (*offline.Director, error) {
	conf, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	d, err := offline.New(conf, offline.Options{Down: down})
	if err != nil {
		if len(down) > 0 {
			return nil, usageError{err}
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, w := range d.Warnings() {
		fmt.Fprintln(c.ErrOrStderr(), "xlvs: warning:", w)
	}
	return d, nil
}

func (f *replayFlags) run(c *cobra.Command) (err error) {
	format, err := pcapio.FormatOf(f.out)
	if err != nil {
		return usageError{fmt.Errorf("--out %w", err)}
	}
	d, err := offlineDirector(c, f.config, f.down)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	src, in, err := openCapture(f.in)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := create(f.out, f.in, f.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	out, err := pcapio.NewWriter(dst, format, d.Interfaces())
	if err != nil {
		return fmt.Errorf("write %s: %w", f.out, err)
	}
	lines, done, err := f.verdictFile()
	if err != nil {
		return err
	}
	s, err := offline.Replay(d, in, out, lines)
	var failed offline.WriteError
	if errors.As(err, &failed) {
		return errors.Join(failed, done())
	}
	if written := errors.Join(out.Flush(), done()); written != nil {
		return fmt.Errorf("the output is not whole: %w", written)
	}
	if s.Packets > 0 || err == nil {
		printSummary(c.OutOrStdout(), s)
	}
	switch {
	case err != nil && s.Packets > 0:
		return fmt.Errorf("%s: %w; what came before it was replayed", f.in, err)
	case err != nil:
		return fmt.Errorf("%s: %w", f.in, err)
	}
	return nil
}

// openCapture opens a capture to read. The caller closes the file.
func openCapture(name string) (*os.File, *pcapio.Reader, error) {
	if i, err := os.Stat(name); err == nil && i.IsDir() {
		return nil, nil, usageError{fmt.Errorf("%s is a directory; --in takes a capture file", name)}
	}
	src, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the capture: %w", err)
	}
	in, err := pcapio.NewReader(src)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), src.Close())
	}
	return src, in, nil
}

// create makes a file, which must be none of the others that the command reads or writes.
func create(name string, others ...string) (*os.File, error) {
	for _, other := range others {
		a, err := os.Stat(name)
		b, otherErr := os.Stat(other)
		if err == nil && otherErr == nil && os.SameFile(a, b) {
			return nil, usageError{fmt.Errorf("%s is %s, which the command needs, and would be overwritten; name another file", name, other)}
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("cannot write: %w", err)
	}
	return f, nil
}

// verdictFile opens the file for verdicts, if there is to be one. done closes it.
func (f *replayFlags) verdictFile() (w io.Writer, done func() error, err error) {
	if f.verdicts == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := create(f.verdicts, f.in, f.config, f.out)
	if err != nil {
		return nil, nil, err
	}
	b := bufio.NewWriterSize(file, 1<<16)
	return b, func() error { return errors.Join(b.Flush(), file.Close()) }, nil
}

func printSummary(w io.Writer, s offline.Summary) {
	fmt.Fprintf(w, "%d packets, %d frames sent: %s\n", s.Packets, s.Frames, tally(s.Verdicts))
	if len(s.Drops) > 0 {
		fmt.Fprintf(w, "dropped: %s\n", tally(s.Drops))
	}
}

// tally prints numbers by name, in the order of names.
func tally(m map[string]int) string {
	if len(m) == 0 {
		return "nothing"
	}
	var parts []string
	for k, n := range m {
		parts = append(parts, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
