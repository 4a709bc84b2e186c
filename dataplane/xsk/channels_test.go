package xsk

import (
	"testing"

	"github.com/safchain/ethtool"
)

func TestChannels(t *testing.T) {
	combined := ethtool.Channels{MaxCombined: 8, MaxOther: 1, OtherCount: 1, CombinedCount: 8}
	mixed := ethtool.Channels{MaxCombined: 8, MaxRx: 8, MaxTx: 8, RxCount: 2, TxCount: 2, CombinedCount: 2}
	apart := ethtool.Channels{MaxRx: 4, MaxTx: 2, RxCount: 1, TxCount: 1}
	for _, c := range []struct {
		name string
		have ethtool.Channels
		n    int
		want ethtool.Channels
		err  string
	}{
		{"combined", combined, 4, ethtool.Channels{MaxCombined: 8, MaxOther: 1, OtherCount: 1, CombinedCount: 4}, ""},
		{"as it is", combined, 8, combined, ""},
		{"combined and apart", mixed, 4, ethtool.Channels{MaxCombined: 8, MaxRx: 8, MaxTx: 8, CombinedCount: 4}, ""},
		{"apart", apart, 2, ethtool.Channels{MaxRx: 4, MaxTx: 2, RxCount: 2, TxCount: 2}, ""},
		{"too many", combined, 9, combined, "it can have at most 8, as ethtool -l shows"},
		{"too many to send by", apart, 3, apart, "it can have at most 2, as ethtool -l shows"},
	} {
		got, err := channels(c.have, c.n)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %+v, %v; want %+v, %q", c.name, got, err, c.want, c.err)
		}
	}
}
