package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"xlvs/control/offline"
)

func testCmd() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use: "test CASES.yaml...", Short: "Run unit tests of a configuration, offline",
		Long: "Run packet cases against a configuration: this packet, that backend or drop reason, these bytes. docs/replay.md says how\n" +
			"cases are written. The exit status is 1 if one fails, and 2 if a file is broken.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("test needs a file of cases: xlvs test CASES.yaml")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return runTests(c, args, verbose) },
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "name also the cases that pass")
	return cmd
}

func runTests(c *cobra.Command, files []string, verbose bool) error {
	w := c.OutOrStdout()
	total, failed := 0, 0
	var broken error
	for _, name := range files {
		f, err := offline.LoadCases(name)
		before := failed
		if err == nil {
			err = f.Run(func(r offline.CaseResult) {
				total++
				switch {
				case len(r.Failures) > 0:
					failed++
					fmt.Fprintf(w, "FAIL %s:%d: %s\n", name, r.Line, r.Name)
					for _, m := range r.Failures {
						fmt.Fprintln(w, "  "+strings.ReplaceAll(m, "\n", "\n  "))
					}
				case verbose:
					fmt.Fprintf(w, "ok   %s:%d: %s\n", name, r.Line, r.Name)
				}
			})
		}
		if failed > before { // one of these may be why
			for _, text := range f.Warnings {
				fmt.Fprintf(c.ErrOrStderr(), "xlvs: warning: %s: %s\n", name, text)
			}
		}
		if err != nil {
			fmt.Fprintln(c.ErrOrStderr(), message(err)) // and the other files have their turn
			broken = errors.Join(broken, err)
		}
	}
	if total > 0 || broken == nil {
		fmt.Fprintf(w, "%d cases, %d failed\n", total, failed)
	}
	switch {
	case broken != nil && statusOf(broken) == exitUsage:
		return exitStatus(exitUsage)
	case failed > 0:
		return fmt.Errorf("%d of %d cases failed", failed, total)
	case broken != nil:
		return exitStatus(exitFailed)
	}
	return nil
}
