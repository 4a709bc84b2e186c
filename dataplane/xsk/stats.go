package xsk

import (
	"sync/atomic"

	"xlvs/dataplane"
)

// counters are written by the worker once a batch and read by anyone. Chunks are counted
// as they go to the kernel (filled, txPackets) and come back (rxTaken, completed).
type counters struct {
	rxTaken, rxBytes, rxInvalid     atomic.Uint64
	filled                          atomic.Uint64
	txPackets, txBytes              atomic.Uint64
	txDropped, txInvalid, completed atomic.Uint64
	txRefused, txStalls             atomic.Uint64
	wakeups, errors                 atomic.Uint64
}

// outstanding returns how many chunks the port holds. What came back is read first, so
// that the difference is never negative while the worker runs.
func (p *Port) outstanding() uint64 {
	back := p.count.rxTaken.Load() + p.count.completed.Load()
	return p.count.filled.Load() + p.count.txPackets.Load() - back
}

// Stats returns the port's counters, the kernel's included (XDP_STATISTICS). See
// dataplane.PortStats. Any goroutine may call it, also after Close.
func (p *Port) Stats() dataplane.PortStats {
	d := p.Detail()
	return d.PortStats
}

// Detail is a port's counters with what only AF_XDP can tell.
type Detail struct {
	dataplane.PortStats
	RxInvalid uint64 // received descriptors that made no sense, and fill descriptors that the kernel refused
	FillEmpty uint64 // times the kernel wanted a chunk and the fill ring was empty
	TxRefused uint64 // frames that the driver dropped (sendto answered EBUSY)
	TxStalls  uint64 // wake-ups that sent nothing: the device's queue or a ring was full
}

// Detail returns all counters. Any goroutine may call it.
func (p *Port) Detail() Detail {
	p.mu.Lock()
	if !p.closed {
		if st, err := kernelStatistics(p.fd); err == nil {
			p.kernel = st
		}
	}
	k := p.kernel
	p.mu.Unlock()
	c := &p.count
	invalid := c.rxInvalid.Load() // before rxTaken, which includes it
	return Detail{
		PortStats: dataplane.PortStats{
			RxPackets: c.rxTaken.Load() - invalid, RxBytes: c.rxBytes.Load(),
			TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(),
			TxDropped: c.txDropped.Load(), TxInvalid: c.txInvalid.Load() + k.Tx_invalid_descs,
			RxDropped:   k.Rx_dropped + k.Rx_ring_full,
			Wakeups:     c.wakeups.Load(),
			Errors:      c.errors.Load(),
			Outstanding: p.outstanding(),
		},
		RxInvalid: invalid + k.Rx_invalid_descs,
		FillEmpty: k.Rx_fill_ring_empty_descs,
		TxRefused: c.txRefused.Load(),
		TxStalls:  c.txStalls.Load(),
	}
}

// FirstError returns the first error that a wake-up met, or nil. Any goroutine may call it.
func (p *Port) FirstError() error {
	if e := p.firstErr.Load(); e != nil {
		return e
	}
	return nil
}
