package metrics

import (
	dto "github.com/prometheus/client_model/go"

	"github.com/settmq/settmq/storage"
)

// labels are those of a series. They may be shared between families, and are never changed.
type labels []*dto.LabelPair

// with makes labels of names and values in turn.
func with(pairs ...string) labels {
	l := make(labels, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, &dto.LabelPair{Name: &pairs[i], Value: &pairs[i+1]})
	}
	return sorted(l)
}

// scrape is an answer in the making.
type scrape struct {
	prefix   string
	families []*dto.MetricFamily
}

func (s *scrape) family(name, help string, kind dto.MetricType) *dto.MetricFamily {
	name = s.prefix + name
	f := &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}
	s.families = append(s.families, f)
	return f
}

func addGauge(f *dto.MetricFamily, l labels, v float64) {
	f.Metric = append(f.Metric, &dto.Metric{Label: l, Gauge: &dto.Gauge{Value: &v}})
}

func addCounter(f *dto.MetricFamily, l labels, v float64) {
	f.Metric = append(f.Metric, &dto.Metric{Label: l, Counter: &dto.Counter{Value: &v}})
}

// add appends a sample of the family's own kind.
func add(f *dto.MetricFamily, l labels, v float64) {
	switch *f.Type {
	case dto.MetricType_COUNTER:
		addCounter(f, l, v)
	case dto.MetricType_UNTYPED:
		f.Metric = append(f.Metric, &dto.Metric{Label: l, Untyped: &dto.Untyped{Value: &v}})
	default:
		addGauge(f, l, v)
	}
}

func (s *scrape) gauge(name, help string, v float64, pairs ...string) {
	addGauge(s.family(name, help, dto.MetricType_GAUGE), with(pairs...), v)
}

func (s *scrape) counter(name, help string, v float64, pairs ...string) {
	addCounter(s.family(name, help, dto.MetricType_COUNTER), with(pairs...), v)
}

func (s *scrape) untyped(name, help string, v float64, pairs ...string) {
	add(s.family(name, help, dto.MetricType_UNTYPED), with(pairs...), v)
}

// histogram adds one of counts by bucket; those of beyond the last bound are in count only.
func (s *scrape) histogram(name, help string, h storage.Histogram, pairs ...string) {
	f := s.family(name, help, dto.MetricType_HISTOGRAM)
	d := &dto.Histogram{SampleCount: &h.Count, SampleSum: &h.Sum}
	var below uint64
	for i := range h.Bounds {
		below += h.Counts[i]
		n := below
		d.Bucket = append(d.Bucket, &dto.Bucket{UpperBound: &h.Bounds[i], CumulativeCount: &n})
	}
	f.Metric = append(f.Metric, &dto.Metric{Label: with(pairs...), Histogram: d})
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
