package fifo

import "testing"

// TestCallersBugsPanic: what no peer and no disk can cause.
func TestCallersBugsPanic(t *testing.T) {
	tests := map[string]func(m *Machine[int]){
		"consumer id zero":      func(m *Machine[int]) { _ = m.Subscribe(Consumer{}) },
		"consumer id in use":    func(m *Machine[int]) { _ = m.Subscribe(Consumer{ID: 1}) },
		"restore after enqueue": func(m *Machine[int]) { m.Enqueue(Item[int]{}); m.Restore(5, 0, 5, 5) },
		"restore backwards":     func(m *Machine[int]) { m.Restore(5, 6, 1, 1) },
		"groups and priorities": func(*Machine[int]) { New[int](Options{Groups: true, MaxPriority: 1}) },
		"restore less than 0":   func(m *Machine[int]) { m.Restore(5, 0, -1, 0) },
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			m := New[int](Options{})
			if err := m.Subscribe(Consumer{ID: 1}); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			f(m)
		})
	}
}

// TestLoadedIgnoresWhatItDidNotAskFor: a store that answers late, twice, too much, or out of order does no harm.
func TestLoadedIgnoresWhatItDidNotAskFor(t *testing.T) {
	items := func(seqs ...uint64) (list []LoadedItem[int]) {
		for _, seq := range seqs {
			list = append(list, LoadedItem[int]{Seq: seq, Payload: int(seq), Size: 1})
		}
		return list
	}
	m := New[int](Options{})
	m.Restore(10, 4, 6, 6)
	if m.Loaded(items(4, 5), 6); m.LoadedBytes() != 0 {
		t.Fatal("loaded without a load in flight")
	}
	if want := m.NeedsLoad(1); len(want) != 1 || want[0].From != 4 || want[0].To != 10 {
		t.Fatal(want)
	}
	// 3 lies before the backlog, 5 and 4 come again, 8 and 9 lie above next.
	if missing := m.Loaded(items(3, 4, 5, 4, 5, 6, 8, 9), 8); missing != 0 || m.LoadedBytes() != 3 {
		t.Fatal(missing, m.LoadedBytes())
	}
	if m.Loaded(items(8, 9), 10); m.LoadedBytes() != 3 {
		t.Fatal("loaded twice")
	}
	var d Delivery[int]
	for want := range 3 {
		if !m.Get(noLimit, true, &d) || d.Payload != want+4 {
			t.Fatal(d)
		}
	}
	// More messages than were counted: all come out, and the counts end at zero.
	if want := m.NeedsLoad(1); len(want) != 1 || want[0].From != 8 {
		t.Fatal(want)
	}
	if missing := m.Loaded(items(8, 9), 10); missing != 1 || m.Ready() != 2 {
		t.Fatal(missing, m.Ready())
	}
	m = New[int](Options{})
	m.Restore(10, 4, 1, 1)
	m.NeedsLoad(1)
	if missing := m.Loaded(items(4, 5, 6), 10); missing != 0 || m.Ready() != 3 || m.ReadyBytes() != 3 {
		t.Fatal(missing, m.Ready(), m.ReadyBytes())
	}
}
