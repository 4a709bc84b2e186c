package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"xlvs/testenv"
	"xlvs/testenv/demo"
)

func demoCmd() *cobra.Command {
	layout, output := testenv.Switched.String(), "table"
	cmd := &cobra.Command{
		Use: "demo", Short: "Show the director at work in a lab on this machine", Args: noArgs,
		Long: "Build a lab of network namespaces, run the director in it, send real HTTP in all three modes over IPv4 and IPv6,\n" +
			"then kill a server under load. Needs root; touches nothing outside the lab, and removes it at the end.",
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %s: only table and json are possible", output)}
			}
			o := demo.Options{Out: c.OutOrStdout()}
			switch layout {
			case testenv.Switched.String():
			case testenv.Routed.String():
				o.Layout = testenv.Routed
			default:
				return usageError{fmt.Errorf("--layout %s: only switched and routed are possible", layout)}
			}
			if output == "json" {
				o.Out = c.ErrOrStderr()
			}
			return runDemo(c, o, output == "json")
		},
	}
	cmd.Flags().StringVar(&layout, "layout", layout, "`LAYOUT`: switched (client, director and servers on one segment) or routed")
	cmd.Flags().StringVarP(&output, "output", "o", output, "`FORMAT`: table, or json (then the report for people goes to standard error)")
	return cmd
}

// An endingWriter calls end once nobody reads any more.
type endingWriter struct {
	io.Writer
	end func()
}

func (w endingWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		w.end()
	}
	return n, err
}

// runDemo fails when the demo shows something else than it should.
func runDemo(c *cobra.Command, o demo.Options, asJSON bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("demo needs root: it makes network namespaces on this machine, and removes them again; run: sudo make demo")
	}
	if o.Binary, err = os.Executable(); err != nil {
		return err
	}
	// Whoever reads the output may stop, as head does: that must not end the program before the lab is removed. It shows as an
	// error of a write, and not by the signal, which a connection that a server has reset brings as well.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	o.Out = endingWriter{o.Out, cancel}
	result, err := demo.Run(ctx, o)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if asJSON {
		enc := json.NewEncoder(c.OutOrStdout())
		enc.SetIndent("", "  ")
		if err := enc.Encode(result); err != nil {
			return err
		}
	}
	if faults := result.Faults(); len(faults) > 0 {
		return fmt.Errorf("demo: not as it should be:\n  %s", strings.Join(faults, "\n  "))
	}
	fmt.Fprintln(o.Out, "\nAll as it should be.")
	return nil
}
