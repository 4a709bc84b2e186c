package xsk

import (
	"errors"
	"fmt"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// SetChannels gives an interface of the calling thread's network namespace n queues to receive by and n to send by
// (ETHTOOL_SCHANNELS, as ethtool -L), and returns a function that gives it back as many as it had; it may be called
// from any thread. Where the interface has so many already, nothing is done.
func SetChannels(name string, n int) (restore func() error, err error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("queues of %s: %w", name, err)
	}
	old, err := e.GetChannels(name)
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("`channels: %d` for %s: its driver does not let the number of queues be read (%w); leave the key out", n, name, err)
	}
	want, err := channels(old, n)
	if err == nil && want != old {
		_, err = e.SetChannels(name, want)
	}
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("`channels: %d` for %s: %w", n, name, err)
	}
	return func() error {
		defer e.Close()
		if want == old {
			return nil
		}
		// An interface that is gone has taken its settings with it.
		if _, err := e.SetChannels(name, old); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("give %s its %s back: %w", name, plural(int(old.CombinedCount+old.RxCount), "queue"), err)
		}
		return nil
	}, nil
}

// channels is what c becomes with n queues each way: combined ones where the driver has such.
func channels(c ethtool.Channels, n int) (ethtool.Channels, error) {
	most := c.MaxCombined
	if most == 0 {
		most = min(c.MaxRx, c.MaxTx)
	}
	if n > int(most) {
		return c, fmt.Errorf("it can have at most %d, as ethtool -l shows", most)
	}
	if c.MaxCombined > 0 {
		c.CombinedCount, c.RxCount, c.TxCount = uint32(n), 0, 0
	} else {
		c.RxCount, c.TxCount = uint32(n), uint32(n)
	}
	return c, nil
}
