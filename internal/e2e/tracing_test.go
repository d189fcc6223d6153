package e2e_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Spans go to a collector by OTLP, as the OTEL_ variables say; one that is away stops nothing.
func TestTracing_SpansAreExported(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var said []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var got collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &got); err != nil || req.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", req.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range got.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					said = append(said, span.GetName()+" "+hex.EncodeToString(span.GetTraceId())+" "+hex.EncodeToString(span.GetParentSpanId())+" "+resource.GetResource().String())
				}
			}
		}
	}))
	defer server.Close()
	e := newEnv(t, shared)
	e.init()
	e.environ = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + server.URL, "OTEL_SERVICE_NAME=shop-relay"}
	r := e.run()
	execScript(t, e.postgresURL, `INSERT INTO outbox (event_type, source, extensions) VALUES
		('a', '/s', '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')`)
	e.awaitMessages("EVENTS", 1)
	if code := r.stop(); code != 0 { // what is left is exported at the end
		t.Errorf("the relay ends with %d", code)
	}
	mu.Lock()
	if len(said) != 1 || !strings.HasPrefix(said[0], "publish EVENTS 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 ") || !strings.Contains(said[0], "shop-relay") {
		t.Errorf("the collector got %v", said)
	}
	mu.Unlock()

	server.Close()
	e.environ = append(e.environ, "OTEL_BSP_SCHEDULE_DELAY=100")
	r = e.run()
	e.insert(10)
	e.awaitMessages("EVENTS", 11)
	r.awaitLog("spans are not exported")
	started := time.Now()
	if code := r.stop(); code != 0 || time.Since(started) > 10*time.Second {
		t.Errorf("the relay ends with %d after %s", code, time.Since(started))
	}
	for _, variable := range []string{"OTEL_TRACES_EXPORTER=zipkin", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"} {
		e.environ = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", variable}
		name, _, _ := strings.Cut(variable, "=")
		if out, code := e.walrelay("run"); code != 2 || !strings.Contains(out, name) {
			t.Errorf("%s: walrelay run ends with %d and says %q", variable, code, out)
		}
	}
	e.environ = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + server.URL, "OTEL_SDK_DISABLED=true"}
	r = e.run()
	if strings.Contains(r.logs.String(), "exporting spans") {
		t.Error("spans are exported although OTEL_SDK_DISABLED is true")
	}
}
