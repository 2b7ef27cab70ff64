package exchange

// shrinkAbove is the number of entries up to which a table is not worth rebuilding.
const shrinkAbove = 64

// table is a map that gives memory back: Go's maps keep their size when entries are
// deleted, so an exchange that once had 100 000 bindings would hold their memory for
// ever. The zero table is empty and ready to use.
type table[K comparable, V any] struct {
	m    map[K]V
	peak int // most entries since m was made
}

func (t *table[K, V]) len() int { return len(t.m) }

func (t *table[K, V]) get(k K) (V, bool) {
	v, ok := t.m[k]
	return v, ok
}

func (t *table[K, V]) set(k K, v V) {
	if t.m == nil {
		t.m = make(map[K]V)
	}
	t.m[k] = v
	t.peak = max(t.peak, len(t.m))
}

// delete removes k. A table that has fallen to a quarter of its peak is copied into a
// smaller one, which costs a constant per deletion when spread over the deletions.
func (t *table[K, V]) delete(k K) {
	delete(t.m, k)
	switch {
	case len(t.m) == 0:
		*t = table[K, V]{}
	case t.peak > shrinkAbove && len(t.m) < t.peak/4:
		smaller := make(map[K]V, len(t.m))
		for k, v := range t.m {
			smaller[k] = v
		}
		t.m, t.peak = smaller, len(smaller)
	}
}
