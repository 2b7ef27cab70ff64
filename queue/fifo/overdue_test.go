package fifo

import "testing"

func TestOverdueMessagesGoAtOnceUnlessAConsumerHasThem(t *testing.T) {
	for name, o := range map[string]Options{
		"plain": {}, "priorities": {MaxPriority: 5, DefaultPriority: 1}, "groups": {Groups: true},
	} {
		t.Run(name, func(t *testing.T) {
			const now = 1_000_000
			m := New[int](o)
			var d Delivery[int]
			first := m.Enqueue(Item[int]{Payload: 1, Priority: 3, Group: 1})
			m.Enqueue(Item[int]{Payload: 2, Priority: 3, Group: 2})
			third := m.Enqueue(Item[int]{Payload: 3, Priority: 3, Group: 3})
			if !m.Get(third+1, false, &d) || d.Seq != first {
				t.Fatalf("got %d", d.Seq)
			}
			m.Overdue(first, 3)
			m.Overdue(third, 3)
			m.Overdue(99, 3)
			if !m.Expire(now, false, &d) || d.Payload != 3 || m.Expire(now, false, &d) {
				t.Fatalf("%d expired, want 3 alone", d.Payload)
			}
			m.Requeue(first, false)
			if !m.Expire(now, false, &d) || d.Payload != 1 || m.Ready() != 1 {
				t.Fatalf("%d expired when it was returned, want 1; %d are left", d.Payload, m.Ready())
			}
		})
	}
}
