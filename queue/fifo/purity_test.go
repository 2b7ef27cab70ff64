package fifo

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// parsePackage parses the files of the package that are not tests.
func parsePackage(t *testing.T, fset *token.FileSet) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// TestImportsAreOnlyPureOnes keeps clocks, locks, files, sockets and randomness out.
func TestImportsAreOnlyPureOnes(t *testing.T) {
	allowed := []string{"cmp", "errors", "math/bits", "slices"}
	for _, f := range parsePackage(t, token.NewFileSet()) {
		for _, imp := range f.Imports {
			if path := strings.Trim(imp.Path.Value, `"`); !slices.Contains(allowed, path) {
				t.Errorf("package %s is imported; only %v may be", path, allowed)
			}
		}
	}
}

// TestNothingDependsOnChance finds what would make two machines differ: ranging over a map, select, go statements.
func TestNothingDependsOnChance(t *testing.T) {
	fset := token.NewFileSet()
	files := parsePackage(t, fset)
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	if _, err := conf.Check("fifo", fset, files, info); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.RangeStmt:
				if _, ok := info.Types[n.X].Type.Underlying().(*types.Map); ok {
					t.Errorf("%s: ranges over a map", fset.Position(n.Pos()))
				}
			case *ast.SelectStmt, *ast.GoStmt:
				t.Errorf("%s: select or go statement", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

// TestEqualCallsGiveEqualResults drives two machines through the same thousands of calls.
func TestEqualCallsGiveEqualResults(t *testing.T) {
	trace := func() string {
		var out strings.Builder
		r := rand.New(rand.NewPCG(1, 2))
		m := New[*int](Options{})
		a := admitFunc(func(id ConsumerID, size uint32) bool { return (uint32(id)+size)%11 != 0 })
		always := func(uint64) bool { return true }
		id := ConsumerID(0)
		for range 20_000 {
			var d Delivery[*int]
			switch seq := r.Uint64N(m.NextSeq() + 1); r.IntN(10) {
			case 0:
				id++
				_ = m.Subscribe(Consumer{ID: id, Prefetch: r.Uint32N(5), Priority: r.Int32N(3)})
			case 1:
				if r.IntN(3) == 0 {
					m.Unsubscribe(ConsumerID(r.Uint64N(uint64(id) + 1)))
				}
				m.Unpark(ConsumerID(r.Uint64N(uint64(id) + 1)))
			case 2, 3, 4:
				m.Enqueue(Item[*int]{Size: r.Uint32N(100)})
			case 5, 6:
				fmt.Fprintln(&out, m.Next(m.NextSeq(), a, &d), d)
			case 7:
				it, ok := m.Ack(seq)
				fmt.Fprintln(&out, it, ok)
			case 8:
				fmt.Fprintln(&out, m.Requeue(seq, r.IntN(2) == 0))
			case 9:
				fmt.Fprintln(&out, m.Ready(), m.Unacked(), m.LoadedBytes())
				if r.IntN(20) == 0 {
					m.PageOut(5, 20, always)
				}
				if want := m.NeedsLoad(3); want != nil && r.IntN(2) == 0 {
					m.Loaded([]LoadedItem[*int]{{Seq: want[0].From, Size: 1}}, want[0].From+1)
				} else if want != nil {
					m.LoadFailed()
				}
			}
		}
		return out.String()
	}
	if first := trace(); first != trace() {
		t.Fatal("two machines differ after the same calls")
	}
}

type admitFunc func(ConsumerID, uint32) bool

func (f admitFunc) Admit(id ConsumerID, size uint32) bool { return f(id, size) }
