package announce

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
)

// A port is one interface that is answered on: two sockets with a reader each, and a goroutine that announces.
type port struct {
	opt    *Options
	name   string
	arp    *packet.Conn
	nd     *packet.Conn
	groups *groups

	view    atomic.Pointer[view]
	claims  claims
	kick    chan struct{} // capacity 1: due changed
	done    chan struct{}
	wg      sync.WaitGroup
	setOnce bool
	last    Interface // of the last set; guarded by Announcer.mu

	mu  sync.Mutex
	due map[netip.Addr][]time.Time // when each VIP is to be announced
	def defences

	answered, announced, conflicts, failed atomic.Uint64
}

func openPort(o *Options, ifc Interface) (*port, error) {
	p := &port{
		opt: o, name: ifc.Name, kick: make(chan struct{}, 1), done: make(chan struct{}),
		due: map[netip.Addr][]time.Time{}, claims: newClaims(o.ConflictEvery), def: newDefences(o.ConflictEvery),
	}
	p.view.Store(&view{})
	if err := inNamespace(o.Namespace, func() error { return p.open(ifc) }); err != nil {
		p.closeSockets()
		return nil, fmt.Errorf("announce on %s: %w", ifc.Name, err)
	}
	p.wg.Go(func() { p.read(p.arp, (*view).arp) })
	p.wg.Go(func() { p.read(p.nd, (*view).nd) })
	p.wg.Go(p.announce)
	return p, nil
}

func (p *port) open(ifc Interface) (err error) {
	if p.arp, err = listen(ifc, etherARP, arpFilter); err != nil {
		return err
	}
	if p.nd, err = listen(ifc, etherIP6, ndFilter); err != nil {
		return err
	}
	p.groups, err = openGroups(ifc.Index, p.nd)
	return err
}

func listen(ifc Interface, proto int, filter func() ([]bpf.RawInstruction, error)) (*packet.Conn, error) {
	prog, err := filter()
	if err != nil {
		return nil, fmt.Errorf("packet filter: %w", err)
	}
	c, err := packet.Listen(&net.Interface{Index: ifc.Index, Name: ifc.Name, HardwareAddr: ifc.MAC},
		packet.Raw, proto, &packet.Config{Filter: prog})
	if err != nil {
		return nil, fmt.Errorf("packet socket (needs CAP_NET_RAW): %w", err)
	}
	return c, nil
}

// inNamespace runs f on a thread in ns; a thread that cannot be put back is thrown away.
func inNamespace(ns *netns.NsHandle, f func() error) error {
	if ns == nil {
		return f()
	}
	errc := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			errc <- err
			return
		}
		defer home.Close()
		if err := netns.Set(*ns); err != nil {
			errc <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		errc <- err
	}()
	return <-errc
}

// set makes vips the ones answered for and announces those for which there is an occasion.
func (p *port) set(ifc Interface, ours map[[6]byte]bool, vips map[netip.Addr]bool) {
	old := p.view.Load()
	v := &view{mac: [6]byte(ifc.MAC), ours: ours, vips: vips}
	p.view.Store(v)
	p.groups.set(vips)
	all := !p.setOnce || old.mac != v.mac || ifc.Up && !p.last.Up || ifc.Ups != p.last.Ups
	p.setOnce, p.last = true, ifc

	p.mu.Lock()
	now := time.Now()
	for vip := range p.due {
		if !vips[vip] {
			delete(p.due, vip)
		}
	}
	p.def.keep(vips)
	for vip := range vips {
		if (all || !old.vips[vip]) && len(p.opt.Announcements) > 0 {
			times := make([]time.Time, len(p.opt.Announcements))
			for i, d := range p.opt.Announcements {
				times[i] = now.Add(d)
			}
			p.due[vip] = times
		}
	}
	p.mu.Unlock()
	p.wake()
}

// wake has announce look again at what is due.
func (p *port) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// announce sends what is due.
func (p *port) announce() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		v := p.view.Load()
		due, next := p.takeDue(time.Now())
		for _, vip := range due {
			p.sendAnnouncement(v, vip)
		}
		timer.Reset(next)
		select {
		case <-p.done:
			return
		case <-p.kick:
		case <-timer.C:
		}
	}
}

// takeDue returns the VIPs whose time has come, and for how long nothing else is due.
func (p *port) takeDue(now time.Time) (vips []netip.Addr, next time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	vips, next = p.def.take(now)
	for vip, times := range p.due {
		if !times[0].After(now) {
			if !slices.Contains(vips, vip) {
				vips = append(vips, vip)
			}
			times = times[1:]
			p.due[vip] = times
		}
		if len(times) == 0 {
			delete(p.due, vip)
			continue
		}
		next = min(next, max(times[0].Sub(now), 0))
	}
	return vips, next
}

func (p *port) sendAnnouncement(v *view, vip netip.Addr) {
	if !v.vips[vip] {
		return
	}
	var ok bool
	if vip.Is4() {
		ok = p.send(p.arp, v.arpAnnouncement(vip))
	} else {
		ok = p.send(p.nd, v.unsolicited(vip))
	}
	if ok {
		p.announced.Add(1)
	}
}

// send reports a failure only by count: the link may be down, and when it comes up all is announced again. It
// tries twice, because a link that was down leaves an error on the socket that the next call gets.
func (p *port) send(c *packet.Conn, frame []byte) bool {
	to := &packet.Addr{HardwareAddr: frame[:6]}
	_, err := c.WriteTo(frame, to)
	if err != nil {
		_, err = c.WriteTo(frame, to)
	}
	if err != nil {
		p.failed.Add(1)
	}
	return err == nil
}

// read judges frames until the socket is closed. A link that goes down makes one read fail with ENETDOWN; the kernel
// hooks the socket up again when it comes back, so reading just goes on.
func (p *port) read(c *packet.Conn, judge func(*view, []byte) verdict) {
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-p.done:
				return
			case <-time.After(10 * time.Millisecond): // no spinning on an error that lasts
			}
			continue
		}
		v := p.view.Load()
		out := judge(v, buf[:n])
		if out.reply != nil && p.send(c, out.reply) {
			p.answered.Add(1)
		}
		if out.claimed.IsValid() {
			p.conflict(out.claimed, out.claimant)
		}
	}
}

func (p *port) conflict(vip netip.Addr, mac [6]byte) {
	p.conflicts.Add(1)
	now := time.Now()
	p.mu.Lock()
	if p.view.Load().vips[vip] { // it may be so no longer
		p.def.claimed(vip, now)
	}
	p.mu.Unlock()
	p.wake()
	report := p.claims.add(vip, mac, now)
	if report == 0 {
		return
	}
	p.opt.OnConflict(Conflict{Interface: p.name, VIP: vip, MAC: slices.Clone(net.HardwareAddr(mac[:])), Count: report})
}

func (p *port) status() Status {
	s := Status{
		Interface: p.name, Answered: p.answered.Load(), Announced: p.announced.Load(),
		Conflicts: p.conflicts.Load(), Failed: p.failed.Load(), Note: p.groups.note(),
	}
	for vip := range p.view.Load().vips {
		s.VIPs = append(s.VIPs, vip)
	}
	slices.SortFunc(s.VIPs, netip.Addr.Compare)
	return s
}

func (p *port) close() {
	close(p.done)
	p.closeSockets()
	p.wg.Wait()
}

func (p *port) closeSockets() {
	if p.groups != nil {
		p.groups.close()
	}
	for _, c := range []*packet.Conn{p.arp, p.nd} {
		if c != nil {
			c.Close()
		}
	}
}
