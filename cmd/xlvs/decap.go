package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"xlvs/dataplane/steer"
)

// decapOptions are the flags of xlvs decap.
type decapOptions struct {
	iface        string
	outers, vips []string
	guePort      uint16
	attach       string
	stats        time.Duration
}

func decapCmd() *cobra.Command {
	var o decapOptions
	cmd := &cobra.Command{
		Use:   "decap --interface IFACE --outer ADDR… --vip ADDR…",
		Short: "Unwrap tunnelled packets on a real server",
		Long: "Run the XDP decapsulator on a real server of `forward: tun`: it strips IP in IP, GRE and GUE from packets that come to\n" +
			"an --outer address with a packet for a --vip inside, and gives that packet to this machine's own network stack. It runs\n" +
			"until SIGTERM or SIGINT and leaves nothing behind. SIGUSR1 prints the counters; they are printed at the end, too.\n" +
			"The VIP itself must be on a local interface: docs/decap.md shows how.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return decapsulate(c.Context(), &o, c.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.iface, "interface", "", "`IFACE` that the director's packets come in on (required)")
	f.StringSliceVar(&o.outers, "outer", nil, "`ADDR` of this server that packets are tunnelled to; several, or repeat the flag (required)")
	f.StringSliceVar(&o.vips, "vip", nil, "virtual `ADDR` or prefix that may be inside; several, or repeat the flag (required)")
	f.Uint16Var(&o.guePort, "gue-port", 6080, "UDP `PORT` that GUE comes to; 0: no GUE")
	f.StringVar(&o.attach, "attach", "auto", "XDP `MODE`: auto, native or generic")
	f.DurationVar(&o.stats, "stats", 0, "print the counters every so often, as 10s; 0: only when asked, and at the end")
	return cmd
}

// maxDecapVIPs is the size of the program's map.
const maxDecapVIPs = 1 << 16

func (o *decapOptions) parse() (outers, vips []netip.Addr, mode steer.Mode, err error) {
	if o.iface == "" || len(o.outers) == 0 || len(o.vips) == 0 {
		return nil, nil, 0, errors.New("decap needs --interface, --outer and --vip")
	}
	for _, a := range o.outers {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return nil, nil, 0, fmt.Errorf("--outer %q is not an IP address", a)
		}
		outers = append(outers, addr)
	}
	for _, a := range o.vips {
		if vips, err = appendVIPs(vips, a); err != nil {
			return nil, nil, 0, err
		}
	}
	modes := map[string]steer.Mode{"auto": steer.Auto, "native": steer.Native, "generic": steer.Generic}
	mode, ok := modes[o.attach]
	if !ok {
		return nil, nil, 0, fmt.Errorf("--attach %q is none of auto, native and generic", o.attach)
	}
	if o.stats < 0 {
		return nil, nil, 0, fmt.Errorf("--stats %s is negative", o.stats)
	}
	return outers, vips, mode, nil
}

// appendVIPs adds an address, or all addresses of a prefix.
func appendVIPs(to []netip.Addr, word string) ([]netip.Addr, error) {
	p, err := netip.ParsePrefix(word)
	if !strings.Contains(word, "/") {
		var a netip.Addr
		if a, err = netip.ParseAddr(word); err == nil {
			p = netip.PrefixFrom(a.WithZone(""), a.BitLen())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--vip %q is neither an IP address nor a prefix", word)
	}
	if p.Addr().BitLen()-p.Bits() > 16 {
		return nil, fmt.Errorf("--vip %s has more than %d addresses", word, maxDecapVIPs)
	}
	for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
		to = append(to, a)
	}
	if len(to) > maxDecapVIPs {
		return nil, fmt.Errorf("the VIPs have %d addresses or more, and %d are possible", len(to), maxDecapVIPs)
	}
	return to, nil
}

func decapsulate(ctx context.Context, o *decapOptions, out io.Writer) (err error) {
	outers, vips, mode, err := o.parse()
	if err != nil {
		return usageError{fmt.Errorf("%w; `xlvs decap --help` shows its flags", err)}
	}
	link, err := net.InterfaceByName(o.iface)
	if err != nil {
		return fmt.Errorf("interface %s: there is none of that name here (`ip link` lists them)", o.iface)
	}
	// Before the program runs, so that a signal is not missed.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	d, err := steer.LoadDecap(outers, vips)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.AcceptGUE(o.guePort); err != nil {
		return err
	}
	if mode, err = d.Attach(link.Index, o.iface, mode); err != nil {
		return err
	}
	fmt.Fprintf(out, "decapsulating on %s (%s XDP): outer %s; VIPs %s\n", o.iface, mode, strings.Join(o.outers, " "), strings.Join(o.vips, " "))
	var tick <-chan time.Time
	if o.stats > 0 {
		t := time.NewTicker(o.stats)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return printDecap(out, d)
		case <-asked:
		case <-tick:
		}
		if err := printDecap(out, d); err != nil {
			return err
		}
	}
}

// printDecap writes one line: each counter's name and value.
func printDecap(out io.Writer, d *steer.Decap) error {
	c, err := d.Counters()
	if err != nil {
		return err
	}
	words := make([]string, len(c))
	for i, n := range c {
		words[i] = fmt.Sprintf("%s=%d", steer.DecapReason(i), n)
	}
	_, err = fmt.Fprintln(out, strings.Join(words, " "))
	return err
}
