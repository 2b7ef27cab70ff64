package main

import "testing"

// TestStreamLogFindsWhatIsWrong gives a stream's log one thing at a time that a broker must not do.
func TestStreamLogFindsWhatIsWrong(t *testing.T) {
	// Channel 1 has published three messages that were read at the offsets 0 to 2, and a fourth.
	at := func(seq uint32) MessageID { return MessageID{1, seq} }
	for name, c := range map[string]struct {
		do   func(l *StreamLog)
		want Kind // "": nothing
	}{
		"read again":               {func(l *StreamLog) { r := l.Reader(1); r.Delivered(1, at(2)); r.Delivered(2, at(3)) }, ""},
		"unconfirmed and lost":     {func(l *StreamLog) { l.Whole() }, ""},
		"confirmed and read later": {func(l *StreamLog) { l.Confirmed(at(4)); l.Reader(3).Delivered(3, at(4)); l.Whole() }, ""},
		"confirmed and lost":       {func(l *StreamLog) { l.Confirmed(at(4)); l.Whole() }, Lost},
		"another message":          {func(l *StreamLog) { l.Reader(2).Delivered(2, at(4)) }, Changed},
		"twice":                    {func(l *StreamLog) { l.Reader(3).Delivered(3, at(3)) }, Duplicate},
		"not what was asked for":   {func(l *StreamLog) { l.Reader(1).Delivered(2, at(3)) }, Disorder},
		"a hole":                   {func(l *StreamLog) { r := l.Reader(0); r.Delivered(0, at(1)); r.Delivered(2, at(3)) }, Disorder},
		"a gap nobody fills":       {func(l *StreamLog) { l.Reader(3).Delivered(4, at(4)) }, ""},
		"a gap, densely":           {func(l *StreamLog) { l.Dense = true; l.Reader(3).Delivered(4, at(4)) }, Disorder},
		"out of order":             {func(l *StreamLog) { r := l.Reader(3); r.Delivered(3, at(4)); l.Published(1); r.Delivered(4, at(4)) }, Disorder},
		"never published":          {func(l *StreamLog) { l.Reader(3).Delivered(3, at(5)) }, Ghost},
		"of nobody":                {func(l *StreamLog) { l.Reader(3).Delivered(3, MessageID{7, 1}) }, Ghost},
	} {
		t.Run(name, func(t *testing.T) {
			checker := NewChecker(nil, nil)
			l := NewStreamLog("s", checker)
			l.OpenChannel()
			r := l.Reader(0)
			for i := range uint32(4) {
				if id := l.Published(1); i < 3 {
					l.Confirmed(id)
					r.Delivered(int64(i), id)
				}
			}
			c.do(l)
			_, counts, _ := checker.Result()
			if c.want == "" && len(counts) > 0 || c.want != "" && counts[c.want] == 0 {
				t.Errorf("violations are %v, want %q", counts, c.want)
			}
		})
	}
}
