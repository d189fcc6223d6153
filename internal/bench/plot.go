package bench

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"strings"
	"text/template"
)

//go:embed plot.svg.tmpl
var plotTemplate string

// Sizes of the plot, in its own units. A panel is what stands between axes.
const (
	panelTop, panelHeight  = 90.0, 250.0
	barsLeft, barsWidth    = 170.0, 270.0
	curveLeft, curveWidth  = 545.0, 330.0
	barHeight, barDistance = 34.0, 62.0
)

// plot is what the template draws: positions are the plot's, y downwards.
type plot struct {
	Title, Below string
	Drain        *barsPlot
	Live         *curvesPlot
}

type barsPlot struct {
	Title string
	Bars  []bar
}

type bar struct {
	Name, Value, Colour               string
	Y, Middle, Width, Least, Greatest float64 // the last two are the ends of the whisker
	End                               float64
	Whisker                           bool
}

type curvesPlot struct {
	Title  string
	X, Y   []mark
	Curves []curve
}

// mark is a line of the grid.
type mark struct {
	At   float64
	Text string
}

type curve struct {
	Name, Points, Colour string
	LegendY              float64
}

// WriteSVG draws the result: throughput beside its limits, and how latencies
// are spread.
func (r *Result) WriteSVG(w io.Writer) error {
	drawing, err := template.New("plot").Parse(plotTemplate)
	if err != nil {
		return fmt.Errorf("drawing: %w", err)
	}
	e, p := r.Environment, r.Parameters
	drawn := plot{
		Title: "walrelay " + e.Walrelay,
		Below: fmt.Sprintf("Postgres %s, nats-server %s, %d CPUs (%s), events of %d bytes, %s", e.Postgres, e.NATS, e.CPUs, orUnknown(e.CPUModel), p.PayloadBytes, r.StartedAt.Format("2006-01-02")),
	}
	if r.Drain != nil {
		drawn.Drain = r.bars()
	}
	if r.Live != nil {
		drawn.Live = r.curves()
	}
	if err := drawing.Execute(w, drawn); err != nil {
		return fmt.Errorf("drawing: %w", err)
	}
	return nil
}

func (r *Result) bars() *barsPlot {
	const limit, relay = "#9aa5b1", "#1f6f8b"
	d := r.Drain
	drawn := &barsPlot{Title: fmt.Sprintf("Draining %d events in transactions of %d, events/s", r.Parameters.Events, r.Parameters.PerTx)}
	all := []struct {
		name, colour string
		number       func(*Round) float64
	}{
		{"bare reader", limit, func(r *Round) float64 { return r.BareReaderPerS }},
		{"bare publisher", limit, func(r *Round) float64 { return r.BarePublisherPerS }},
		{"walrelay", relay, func(r *Round) float64 { return r.RelayPerS }},
		{"synchronous relay", limit, func(r *Round) float64 { return r.SynchronousPerS }},
	}
	most := 1.0
	for _, b := range all {
		most = max(most, b.number(&d.Max))
	}
	for i, b := range all {
		y := panelTop + float64(i)*barDistance
		x := func(value float64) float64 { return barsLeft + value/most*barsWidth*0.8 } // the value stands behind
		median := b.number(&d.Median)
		drawn.Bars = append(drawn.Bars, bar{
			Name: b.name, Value: fmt.Sprintf("%.0f", median), Colour: b.colour,
			Y: y, Middle: y + barHeight/2, Width: x(median) - barsLeft,
			Least: x(b.number(&d.Min)), Greatest: x(b.number(&d.Max)), End: x(b.number(&d.Max)) + 8, Whisker: len(d.Rounds) > 1,
		})
	}
	return drawn
}

func (r *Result) curves() *curvesPlot {
	l := r.Live
	drawn := &curvesPlot{Title: fmt.Sprintf("Latency at %.0f events/s, in ms, by percentile", l.AchievedPerS)}
	all := []struct {
		name, colour string
		d            Distribution
	}{
		{"commit to consumer", "#d1495b", l.CommitToConsumer},
		{"commit to stream", "#1f6f8b", l.CommitToStream},
		{"COMMIT alone", "#9aa5b1", l.Commit},
	}
	least, most := math.Inf(1), 0.0
	for _, c := range all {
		for _, p := range c.d.Curve {
			least, most = min(least, max(p.Us, 1)), max(most, p.Us)
		}
	}
	low := math.Floor(math.Log10(min(least, 1e9)))
	high := max(math.Ceil(math.Log10(max(most, 1))), low+1)
	y := func(us float64) float64 {
		return panelTop + panelHeight*(high-math.Log10(max(us, 1)))/(high-low)
	}
	for decade := low; decade <= high; decade++ {
		us := math.Pow(10, decade)
		drawn.Y = append(drawn.Y, mark{At: y(us), Text: fmt.Sprintf("%g", us/1000)})
	}
	for _, percent := range []float64{0, 50, 90, 99, 99.9, 100} {
		drawn.X = append(drawn.X, mark{At: percentileX(percent), Text: fmt.Sprintf("%g", percent)})
	}
	for i, c := range all {
		var points strings.Builder
		for _, p := range c.d.Curve {
			fmt.Fprintf(&points, "%.1f,%.1f ", percentileX(p.Percentile), y(p.Us))
		}
		drawn.Curves = append(drawn.Curves, curve{Name: c.name, Colour: c.colour, Points: strings.TrimSpace(points.String()), LegendY: panelTop + 14 + float64(i)*18})
	}
	return drawn
}

// percentileX gives each further nine of a percentile the same room, and puts
// 100 where 99.99 would be followed by the next.
func percentileX(percent float64) float64 {
	nines := 4.5
	if percent < 100 {
		nines = min(-math.Log10(1-percent/100), nines)
	}
	return curveLeft + curveWidth*nines/4.5
}
