package bench

import (
	"math"
	"slices"
	"time"
)

// Distribution is how a number of durations are spread.
type Distribution struct {
	Samples int     `json:"samples"`
	P50Us   float64 `json:"p50_us"`
	P90Us   float64 `json:"p90_us"`
	P99Us   float64 `json:"p99_us"`
	P999Us  float64 `json:"p99_9_us"`
	MaxUs   float64 `json:"max_us"`
	// Curve has more percentiles, for a plot.
	Curve []Point `json:"curve"`
}

// Point is one percentile.
type Point struct {
	Percentile float64 `json:"percentile"`
	Us         float64 `json:"us"`
}

// curvePercentiles grow denser towards 100, where the interesting ones are.
func curvePercentiles() []float64 {
	return []float64{0, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97.5, 98, 99, 99.25, 99.5, 99.75, 99.9, 99.95, 99.99, 100}
}

// distribution sorts the samples and reads off the percentiles.
func distribution(samples []time.Duration) Distribution {
	slices.Sort(samples)
	us := func(percent float64) float64 {
		return float64(percentile(samples, percent).Nanoseconds()) / 1000
	}
	d := Distribution{Samples: len(samples), P50Us: us(50), P90Us: us(90), P99Us: us(99), P999Us: us(99.9), MaxUs: us(100)}
	for _, percent := range curvePercentiles() {
		d.Curve = append(d.Curve, Point{Percentile: percent, Us: us(percent)})
	}
	return d
}

// percentile is the nearest-rank one of sorted values: the smallest that is not
// exceeded by so many percent of them. Zero if there are none.
func percentile(sorted []time.Duration, percent float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	// The product may be a hair above the whole number that it should be.
	rank := int(math.Ceil(percent/100*float64(len(sorted)) - 1e-9))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// spread returns the least, the middle and the greatest of values; of an even
// number of them, the middle is half-way between the middle two.
func spread(values []float64) (least, median, greatest float64) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return values[0], (values[(n-1)/2] + values[n/2]) / 2, values[n-1]
}
