package datapath

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"xlvs/dataplane/xsk"
)

// RSS says what became of an interface's RSS table. Entries is 0 where it stayed as it was.
type RSS struct {
	Entries int // how many it has
	Moved   int // how many of them led to queues that are not served
}

// rssTable is an xsk.RSSTable, or a test's.
type rssTable interface {
	Astray(queues []int) (entries, astray int, err error)
	Spread(queues []int) error
}

// readRSS reads the interfaces' tables, for Close to give back.
func (d *Datapath) readRSS() {
	for k := range d.infos {
		info := &d.infos[k]
		table, err := xsk.ReadRSS(info.Name)
		if info.noTable = err; err == nil {
			info.table = table
			d.restore = append(d.restore, table.Restore)
		}
	}
}

// keepToServed sees to it that what an interface receives arrives at queues that are served, or notes what is lost. That is done
// when the steering program is attached: some drivers make the table anew then, or more queues to send by, and receive by these too.
func (d *Datapath) keepToServed(info *Info) error {
	have, err := xsk.Queues(info.Name)
	if err != nil {
		return err
	}
	info.settle(have)
	return nil
}

// settle decides about the table of an interface that has so many queues now that it is attached.
func (info *Info) settle(have int) {
	more := have > info.have && len(info.Queues) == info.have
	info.have = have
	if len(info.Queues) == have {
		return
	}
	entries, astray, err := 0, 0, info.noTable
	if err == nil {
		if entries, astray, err = info.table.Astray(info.Queues); err == nil && astray == 0 {
			return
		}
	}
	if err == nil && !info.keepRSS {
		err = info.table.Spread(info.Queues)
	}
	note := ""
	switch {
	case err != nil && more:
		note = fmt.Sprintf("%s: %v. The others came with the steering program: `attach: generic` does without", info.lost(), err)
	case errors.Is(err, xsk.ErrNoRSS):
		note = fmt.Sprintf("%s: %v; serve all queues, or give it fewer with `channels`", info.lost(), xsk.ErrNoRSS)
	case err != nil:
		note = fmt.Sprintf("%s: %v", info.lost(), err)
	case info.keepRSS:
		note = fmt.Sprintf("%s. Keep them away: ethtool -X %s weight %s, or leave `rss: keep` out", info.lost(), info.Name, info.weights())
	default:
		info.RSS = RSS{Entries: entries, Moved: astray}
		note = fmt.Sprintf("of %s, %d are served: while the director runs, all %d entries of the RSS table lead to these (%d led to others)",
			queues(have), len(info.Queues), entries, astray)
	}
	info.Notes = append(info.Notes, note)
}

// lost tells of queues that no worker serves: what the card spreads over them for a virtual service, nobody takes.
func (info *Info) lost() string {
	return fmt.Sprintf("of %s, %d are served; virtual services' packets that arrive at the others are lost", queues(info.have), len(info.Queues))
}

// weights are those of ethtool -X.
func (info *Info) weights() string {
	weights := make([]string, info.have)
	for q := range weights {
		weights[q] = "0"
		if slices.Contains(info.Queues, q) {
			weights[q] = "1"
		}
	}
	return strings.Join(weights, " ")
}
