package traceparent

import (
	"testing"

	"go.opentelemetry.io/otel/trace"
)

func TestContext(t *testing.T) {
	t.Parallel()
	const id = "0af7651916cd43dd8448eb211c80319c"
	for name, test := range map[string]struct {
		parent, state string
		trace         string
		sampled       bool
		wantState     string
	}{
		"sampled":                 {"00-" + id + "-b7ad6b7169203331-01", "a=b,c=d", id, true, "a=b,c=d"},
		"not sampled":             {"00-" + id + "-b7ad6b7169203331-00", "", id, false, ""},
		"other flags":             {"00-" + id + "-b7ad6b7169203331-03", "", id, true, ""},
		"a state that is wrong":   {"00-" + id + "-b7ad6b7169203331-01", "\x00=,=", id, true, ""},
		"nothing":                 {},
		"another version":         {parent: "ff-" + id + "-b7ad6b7169203331-01"},
		"a trace of zeros":        {parent: "00-00000000000000000000000000000000-b7ad6b7169203331-01"},
		"a span of zeros":         {parent: "00-" + id + "-0000000000000000-01"},
		"letters that are no hex": {parent: "00-" + id[:31] + "g-b7ad6b7169203331-01"},
		"too long":                {parent: "00-" + id + "-b7ad6b7169203331-01-more"},
		"other separators":        {parent: "00-" + id + "_b7ad6b7169203331_01"},
	} {
		got := trace.SpanContextFromContext(Context(t.Context(), test.parent, test.state))
		if test.trace == "" {
			if got.IsValid() {
				t.Errorf("%s: %v", name, got)
			}
			continue
		}
		if got.TraceID().String() != test.trace || !got.IsRemote() || got.IsSampled() != test.sampled || got.TraceState().String() != test.wantState {
			t.Errorf("%s: %v, sampled %t, state %q", name, got.TraceID(), got.IsSampled(), got.TraceState())
		}
	}
}
