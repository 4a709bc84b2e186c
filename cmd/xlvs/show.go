package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"xlvs/control/api"
)

// defaultAPI is the default of director.api.
const defaultAPI = "/run/xlvs.sock"

// showFlags are common to the commands that ask a running director.
type showFlags struct{ api, output string }

func (f *showFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.api, "api", defaultAPI, "`PATH` of the director's unix socket (director.api)")
	c.Flags().StringVarP(&f.output, "output", "o", "table", "`FORMAT`: table or json")
}

// showCmd makes a command that fetches something and prints it as JSON or by print.
func showCmd[T any](use, short string, fetch func(*api.Client, context.Context) (T, error), print func(io.Writer, T)) *cobra.Command {
	var f showFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.output != "table" && f.output != "json" {
				return usageError{fmt.Errorf("-o %s: only table and json are possible", f.output)}
			}
			v, err := fetch(api.NewClient(f.api), c.Context())
			if err != nil {
				return err
			}
			if f.output == "json" {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(v)
			}
			print(c.OutOrStdout(), v)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func statusCmd() *cobra.Command {
	return showCmd("status", "Show the running director", (*api.Client).Status, printStatus)
}

func servicesCmd() *cobra.Command {
	return showCmd("services", "List the virtual services of the running director", (*api.Client).Services, printServices)
}

func backendsCmd() *cobra.Command {
	return showCmd("backends", "List the backends of the running director", (*api.Client).Backends, printBackends)
}

func reloadCmd() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "reload", Short: "Make the running director read its configuration file again", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return api.NewClient(path).Reload(c.Context()) },
	}
	cmd.Flags().StringVar(&path, "api", defaultAPI, "`PATH` of the director's unix socket (director.api)")
	return cmd
}

// newTable is the look of all tables: aligned columns, no boxes, numbers to the right.
func newTable(w io.Writer, numbers []string, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SuppressTrailingSpaces()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatUpper
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.AppendHeader(header)
	var cols []table.ColumnConfig
	for _, n := range numbers {
		cols = append(cols, table.ColumnConfig{Name: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(cols)
	return t
}

func printStatus(w io.Writer, s api.Status) {
	fmt.Fprintf(w, "xlvs %s, process %d, up %v, configuration %s (generation %d)\n", s.Version, s.PID,
		time.Since(s.Started).Round(time.Second), s.File, s.Generation)
	fmt.Fprintf(w, "%s, %d of %s up\n\n", plural(s.Services, "service"), s.Up, plural(s.Backends, "backend"))
	t := newTable(w, []string{"mtu"}, "interface", "link", "mac", "mtu", "queue", "attach", "bind")
	for _, i := range s.Interfaces {
		link := "down"
		if i.Up {
			link = "up"
		}
		t.AppendRow(table.Row{i.Name, link, i.MAC, i.MTU, ranges(i.Queues), i.Attach, i.Bind})
	}
	t.Render()
	for _, i := range s.Interfaces {
		for _, n := range i.Notes {
			fmt.Fprintf(w, "%s: %s\n", i.Name, n)
		}
	}
	fmt.Fprintln(w)
	t = newTable(w, []string{"rx packets", "rx bytes", "flows", "of", "new", "evicted", "rx dropped", "tx dropped"},
		"worker", "cpu", "rx packets", "rx bytes", "flows", "of", "new", "evicted", "rx dropped", "tx dropped")
	for i, k := range s.Workers {
		cpu := "any"
		if k.CPU >= 0 {
			cpu = strconv.Itoa(k.CPU)
		}
		var rx, tx uint64
		for _, p := range k.Ports {
			rx, tx = rx+p.RxDropped, tx+p.TxDropped
		}
		t.AppendRow(table.Row{i, cpu, k.RxPackets, k.RxBytes, k.Flows, k.FlowCapacity, k.FlowsNew, k.FlowsEvicted, rx, tx})
	}
	t.Render()
	fmt.Fprintf(w, "\nforwarded: %s, replies %d\n", counts(s.Forwarded), s.Replies)
	fmt.Fprintf(w, "dropped:   %s\n", counts(s.Drops))
	if s.LogError != "" {
		fmt.Fprintf(w, "log:       cannot be written: %s; %d lines lost\n", s.LogError, s.LogLost)
	} else if s.LogLost > 0 {
		fmt.Fprintf(w, "log:       %d lines lost\n", s.LogLost)
	}
}

// ranges writes sorted numbers as "0-3, 6".
func ranges(v []int) string {
	var parts []string
	for i := 0; i < len(v); i++ {
		first := v[i]
		for i+1 < len(v) && v[i+1] == v[i]+1 {
			i++
		}
		part := strconv.Itoa(first)
		if v[i] != first {
			part += "-" + strconv.Itoa(v[i])
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// dash shows what is not known.
func dash(s string) string { return cmp.Or(s, "-") }

// portName is how tables show a service's or backend's port.
func portName(port uint16) string {
	if port == 0 {
		return "any"
	}
	return strconv.Itoa(int(port))
}

// stateOf is how tables show a backend's state, and why it is so. One that is healthy, or not checked, but whose next hop is not
// known gets no packets.
func stateOf(up bool, reason, unreached string) (state, why string) {
	switch {
	case unreached == "" && up:
		return "up", reason
	case unreached == "":
		return "down", reason
	case up:
		return "unreached", unreached
	}
	return "down", unreached
}

// counts prints a map of counters in the order of its keys.
func counts(m map[string]uint64) string {
	if len(m) == 0 {
		return "nothing"
	}
	var s []string
	for k, n := range m {
		s = append(s, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

func printServices(w io.Writer, list []api.Service) {
	t := newTable(w, []string{"up", "of", "slots", "active", "inactive", "flows", "packets", "bytes", "reply packets", "reply bytes"},
		"service", "address", "port", "protocol", "forward", "up", "of", "slots", "active", "inactive", "flows", "packets", "bytes", "reply packets", "reply bytes")
	for _, s := range list {
		t.AppendRow(table.Row{s.Name, s.Address, portName(s.Port), s.Protocol, s.Forward, s.Up, s.Backends, s.Slots, s.Active, s.Inactive,
			s.Flows, s.Packets, s.Bytes, s.ReplyPackets, s.ReplyBytes})
	}
	t.Render()
}

func printBackends(w io.Writer, list []api.Backend) {
	t := newTable(w, []string{"weight", "slots", "active", "inactive", "flows", "packets", "bytes"},
		"service", "backend", "address", "port", "forward", "weight", "state", "slots", "next hop", "via", "active", "inactive", "flows", "packets", "bytes", "reason")
	for _, b := range list {
		state, reason := stateOf(b.Up, b.Reason, b.Unreached)
		t.AppendRow(table.Row{b.Service, b.Name, b.Address, portName(b.Port), b.Forward, b.Weight, state, b.Slots, dash(b.NextHop), dash(b.Interface),
			b.Active, b.Inactive, b.Flows, b.Packets, b.Bytes, reason})
	}
	t.Render()
}
