package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"xlvs/perf"
	"xlvs/perf/report"
	"xlvs/perf/wire"
)

// scenarios are all that the lab has, in the order in which `perf run all` runs them.
func scenarios() []perf.Scenario {
	return append(perf.Scenarios(), wire.Scenarios()...)
}

func perfCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "perf", Short: "Measure the director: the performance lab",
		Args: noArgs, // a word that is no subcommand
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(perfListCmd(), perfRunCmd(), perfReportCmd(), perfCompareCmd(), perfProxyCmd())
	return cmd
}

func perfListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the scenarios", Args: noArgs,
		Run: func(c *cobra.Command, _ []string) {
			t := newTable(c.OutOrStdout(), nil, "scenario", "needs", "measures")
			for _, s := range scenarios() {
				needs := ""
				if s.Root {
					needs = "root"
				}
				t.AppendRow(table.Row{s.Name, needs, s.Short})
			}
			t.Render()
		},
	}
}

// perfFlags are those of perf run.
type perfFlags struct {
	quick                   bool
	runs                    int
	format, out, cpuprofile string
	only                    map[string]string
	trial                   time.Duration
}

func perfRunCmd() *cobra.Command {
	var f perfFlags
	cmd := &cobra.Command{
		Use:   "run [SCENARIO...]",
		Short: "Measure, print the figures and save them",
		Long: `Measures the named scenarios, or all of them that this user may run. Progress goes to standard error, figures to
standard output. Ctrl-C ends the run; what was measured until then is printed and saved. A scenario that fails does
not keep the others from running.`,
		Example: `  xlvs perf run pipeline -o json
  xlvs perf run --quick --out quick.json && xlvs perf report quick.json -o quick.html`,
		RunE: func(c *cobra.Command, args []string) error { return perfRun(c, args, &f) },
	}
	cmd.Flags().BoolVar(&f.quick, "quick", false, "fewer cases and runs: minutes instead of an hour")
	cmd.Flags().IntVar(&f.runs, "runs", 0, fmt.Sprintf("how often each figure is measured (default %d; with --quick %d)", perf.DefaultRuns, perf.DefaultQuickRuns))
	cmd.Flags().StringVarP(&f.format, "output", "o", "table", "`FORMAT`: table, or json with one object a figure")
	cmd.Flags().StringVar(&f.format, "format", "table", "as --output, which was called so before")
	_ = cmd.Flags().MarkHidden("format") // fails only without the flag
	cmd.Flags().StringVar(&f.out, "out", "", "save the result in `FILE.json`, for report and compare")
	cmd.Flags().StringToStringVar(&f.only, "only", nil, "measure only the cases with these parameters, `NAME=VALUE,...`, such as mode=dr,case=hit")
	cmd.Flags().DurationVar(&f.trial, "trial", 0, "how long a rate without loss is confirmed for (default 1s; with --quick 100ms)")
	cmd.Flags().StringVar(&f.cpuprofile, "cpuprofile", "", "write a CPU profile to `FILE`")
	_ = cmd.Flags().MarkHidden("cpuprofile")
	return cmd
}

func perfRun(c *cobra.Command, names []string, f *perfFlags) error {
	chosen, notes, err := f.check(names)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(chosen, func(s perf.Scenario) bool { return s.Root }) {
		status, ran, err := wire.OwnSession(c.Context())
		if ran && err == nil && status != 0 {
			return exitStatus(status)
		}
		if ran || err != nil {
			return err
		}
	}
	if f.cpuprofile != "" {
		w, err := os.Create(f.cpuprofile)
		if err != nil {
			return fmt.Errorf("CPU profile: %w", err)
		}
		defer w.Close()
		if err := pprof.StartCPUProfile(w); err != nil {
			return fmt.Errorf("CPU profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	p := &progress{w: c.ErrOrStderr(), terminal: isTerminal(os.Stderr)}
	run := perf.Run{Quick: f.quick, Runs: f.runs, Only: f.only, Trial: f.trial, Notes: notes, Progress: p.show}
	var printErr error
	if f.format == "json" {
		run.Emit = func(row perf.Row) {
			b, err := row.Flat()
			if err == nil {
				p.clear()
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", b)
			}
			printErr = errors.Join(printErr, err)
		}
	}
	if f.out != "" {
		run.Keep = func(res *perf.Result) error { return res.Save(f.out) }
	}
	res, err := perf.Execute(c.Context(), chosen, run, version)
	p.clear()
	var nothing *perf.OnlyError
	if errors.As(err, &nothing) {
		return usageError{fmt.Errorf("--only: %w", err)}
	}
	if f.format == "table" {
		printResult(c.OutOrStdout(), res)
	} else {
		for _, n := range res.Notes { // standard output has figures alone
			fmt.Fprintln(c.ErrOrStderr(), n)
		}
	}
	return errors.Join(err, printErr)
}

// check completes the flags and returns the scenarios of the given names: all that this user may run if there are none,
// and a note on the others.
func (f *perfFlags) check(names []string) (chosen []perf.Scenario, notes []string, err error) {
	if f.format != "table" && f.format != "json" {
		return nil, nil, usageError{fmt.Errorf("-o %s: only table and json are possible", f.format)}
	}
	if f.runs < 0 {
		return nil, nil, usageError{fmt.Errorf("--runs %d: it must be 1 or more", f.runs)}
	}
	if f.trial < 0 {
		return nil, nil, usageError{fmt.Errorf("--trial %v: it must not be negative", f.trial)}
	}
	if f.runs == 0 {
		f.runs = perf.DefaultRuns
		if f.quick {
			f.runs = perf.DefaultQuickRuns
		}
	}
	all := scenarios()
	root := os.Geteuid() == 0
	for _, n := range names {
		i := slices.IndexFunc(all, func(s perf.Scenario) bool { return s.Name == n })
		if i < 0 {
			return nil, nil, usageError{fmt.Errorf("there is no scenario %q; there are %s", n, strings.Join(perf.Names(all), ", "))}
		}
		if all[i].Root && !root {
			return nil, nil, fmt.Errorf("scenario %s needs root: it makes network namespaces", n)
		}
		chosen = append(chosen, all[i])
	}
	if len(names) > 0 {
		return chosen, nil, nil
	}
	var left []string
	for _, s := range all {
		if s.Root && !root {
			left = append(left, s.Name)
		} else {
			chosen = append(chosen, s)
		}
	}
	if left != nil {
		notes = append(notes, strings.Join(left, ", ")+": left out, because network namespaces need root")
	}
	return chosen, notes, nil
}

// progress shows what is being measured: on a terminal in one line that it overwrites, elsewhere a line every few seconds.
type progress struct {
	w        io.Writer
	terminal bool
	last     time.Time
	shown    bool
}

func (p *progress) show(done, total int, what string) {
	now := time.Now()
	switch {
	case p.terminal && now.Sub(p.last) > 50*time.Millisecond:
		fmt.Fprintf(p.w, "\r\x1b[K%3d %% %s", done*100/max(total, 1), what)
		p.shown = true
	case !p.terminal && now.Sub(p.last) > 2*time.Second:
		fmt.Fprintf(p.w, "%3d %% %s\n", done*100/max(total, 1), what)
	default:
		return
	}
	p.last = now
}

// clear removes the progress line, so that figures can be printed.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// printResult prints the rows of each scenario in a table of its own.
func printResult(w io.Writer, res *perf.Result) {
	for _, line := range res.Describe() {
		fmt.Fprintln(w, line)
	}
	for _, s := range res.Scenarios {
		rows := slices.DeleteFunc(slices.Clone(res.Rows), func(r perf.Row) bool { return r.Scenario != s })
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", s)
		params := perf.ParamsOf(rows)
		header := []any{}
		for _, p := range params {
			header = append(header, p)
		}
		t := newTable(w, []string{"median", "min", "max", "spread"}, append(header, "metric", "unit", "median", "min", "max", "spread")...)
		for _, r := range rows {
			var line table.Row
			for _, p := range params {
				line = append(line, perf.Text(r.Params[p]))
			}
			t.AppendRow(append(line, r.Metric, r.Unit, perf.Number(r.Median), perf.Number(r.Min), perf.Number(r.Max), r.Spread()))
		}
		t.Render()
	}
}

func perfReportCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "report RESULT.json", Short: "Draw a result as one HTML page",
		Args: exactFiles("report", 1),
		RunE: func(c *cobra.Command, args []string) error {
			res, err := perf.Load(args[0])
			if err != nil {
				return err
			}
			if out == "-" {
				return report.Write(c.OutOrStdout(), res)
			}
			f, err := os.Create(out)
			if err != nil {
				return fmt.Errorf("report: %w", err)
			}
			return errors.Join(report.Write(f, res), f.Close())
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "report.html", "write the page to `FILE`; - is standard output")
	return cmd
}

func perfCompareCmd() *cobra.Command {
	return &cobra.Command{
		Use: "compare OLD.json NEW.json", Short: "Set two results against each other, row by row",
		Args: exactFiles("compare", 2),
		RunE: func(c *cobra.Command, args []string) error {
			older, err := perf.Load(args[0])
			if err != nil {
				return err
			}
			newer, err := perf.Load(args[1])
			if err != nil {
				return err
			}
			printComparison(c.OutOrStdout(), perf.Compare(older, newer))
			return nil
		},
	}
}

func printComparison(w io.Writer, cmp perf.Comparison) {
	t := newTable(w, []string{"old", "new", "change", "p"}, "figure", "unit", "old", "new", "change", "p", "verdict")
	counts := map[string]int{}
	for _, d := range cmp.Deltas {
		v := d.Verdict()
		counts[v]++
		t.AppendRow(table.Row{d.Old.Key(), d.Old.Unit, perf.Number(d.Old.Median), perf.Number(d.New.Median), d.Percent(), fmt.Sprintf("%.3f", d.P), v})
	}
	t.Render()
	fmt.Fprintf(w, "\n%s in both:", count(len(cmp.Deltas), "figure"))
	for _, v := range perf.Verdicts {
		if counts[v] > 0 {
			fmt.Fprintf(w, " %d %s;", counts[v], v)
		}
	}
	fmt.Fprintln(w, " p is that of a Mann–Whitney U test, two-sided, and significant below 0.05.")
	fmt.Fprintln(w, "Of figures that did not change, one in twenty passes for one that did.")
	for _, only := range []struct {
		keys  []string
		where string
	}{{cmp.OnlyOld, "old"}, {cmp.OnlyNew, "new"}} {
		if len(only.keys) > 0 {
			fmt.Fprintf(w, "%s only in the %s result: %s\n", count(len(only.keys), "figure"), only.where, strings.Join(only.keys, "; "))
		}
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// exactFiles refuses any other number of arguments as wrong usage.
func exactFiles(name string, n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			given := "were"
			if len(args) == 1 {
				given = "was"
			}
			return usageError{fmt.Errorf("%s takes %s of `xlvs perf run --out FILE`, but %d %s given", name, count(n, "result file"), len(args), given)}
		}
		return nil
	}
}

// perfProxyCmd is the proxy that scenario modes compares the director with; it runs in the lab's director namespace.
func perfProxyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "proxy LISTEN SERVER...", Short: "Relay TCP connections", Hidden: true, Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return wire.RunProxy(c.Context(), args[0], args[1:]) },
	}
}
