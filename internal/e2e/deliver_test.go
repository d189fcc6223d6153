package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/testkit"
)

// endpoint is what an application in any language would be.
type endpoint struct {
	mu    sync.Mutex
	got   []string // key, a space and the number, in the order in which they were taken
	tries map[string]int
}

func (p *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id := r.Header.Get("Ce-Partitionkey") + " " + strings.TrimSpace(string(body))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries[id]++
	switch {
	case strings.HasSuffix(id, " 7") && p.tries[id] < 3:
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
	case strings.HasSuffix(id, " 8") && p.tries[id] == 1:
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, "no such customer")
	default:
		p.got = append(p.got, id)
	}
}

func (p *endpoint) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// An endpoint that is away for a while gets everything in order for each key when it is
// there; what it refuses is parked, with what follows its key.
func TestDeliver_InOrderForEachKey(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	if out, code := e.walrelay("init", "--inbox"); code != 0 {
		t.Fatalf("init --inbox ended with %d: %s", code, out)
	}
	p := &endpoint{tries: map[string]int{}}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close() // nobody is there yet
	file := fmt.Sprintf("handlers:\n- {name: billing, types: [order.placed], url: 'http://%s/events'}\n", address)
	if err := os.WriteFile(filepath.Join(e.dir, "handlers.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	deliver := e.launch("deliver")
	testkit.Exec(t, e.postgresURL, `INSERT INTO outbox (event_type, source, data, partition_key)
		SELECT CASE WHEN n > 30 THEN 'order.other' ELSE 'order.placed' END, '/e2e', to_jsonb(n), 'k' || n % 3 FROM generate_series(1, 40) AS n`)
	deliver.awaitLog("what the handler needs is away")
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*) FROM walrelay.parked"); n != "0" {
		t.Errorf("%s events are parked although the endpoint is away", n)
	}
	if listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address); err != nil {
		t.Skipf("the port was taken by somebody else: %v", err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: p, ReadHeaderTimeout: time.Second}}
	server.Start()
	t.Cleanup(server.Close)
	// 8 is refused, and parks 11, 14 … 29 behind it.
	testkit.Eventually(t, 30*time.Second, "22 events are taken", func() error {
		if n := len(p.taken()); n != 22 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	e.awaitSQL("parked events", "SELECT string_agg(state, ' ' ORDER BY number) || ' ' || min(last_error) FILTER (WHERE state = 'failed') FROM walrelay.parked",
		"failed held held held held held held held http://"+address+"/events answered 422 Unprocessable Entity: \"no such customer\"")
	if out, code := e.walrelay("parked", "redrive", "--handler", "billing", "--yes"); code != 0 {
		t.Errorf("redrive ended with %d: %s", code, out)
	}
	testkit.Eventually(t, 30*time.Second, "30 events are taken", func() error {
		if n := len(p.taken()); n != 30 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	last := map[string]int{}
	for _, id := range p.taken() {
		var n int
		key, number, _ := strings.Cut(id, " ")
		if _, err := fmt.Sscan(number, &n); err != nil {
			t.Fatal(err)
		}
		if n <= last[key] {
			t.Errorf("%d came after %d", n, last[key])
		}
		last[key] = n
	}
	testkit.Eventually(t, 10*time.Second, "the metrics have the handled events", func() error {
		if n, err := deliver.metric(`walrelay_handler_handled_total{handler="billing",partition=""}`); err != nil || n != 30 {
			return fmt.Errorf("they have %v (%w)", n, err)
		}
		return nil
	})
	if status, body := deliver.get("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz answers %d: %s", status, body)
	}
	if code := deliver.stop(); code != 0 {
		t.Errorf("deliver ended with %d", code)
	}
}
