package service

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a service until the test ends.
func run(t *testing.T, o Options) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(ctx, o)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

// ask asks until there is an answer.
func ask(t *testing.T, nc *nats.Conn, subject string) *nats.Msg {
	t.Helper()
	var msg *nats.Msg
	testkit.Eventually(t, 10*time.Second, subject+" is answered", func() (err error) {
		msg, err = nc.Request(subject, nil, time.Second)
		return err
	})
	return msg
}

func TestRun_Answers(t *testing.T) {
	url := testkit.NATS(t).URL()
	run(t, Options{
		NATS: config.NATS{URL: url}, Slot: "walrelay", Version: 1, Log: zerolog.Nop(),
		Status: func(context.Context) any { return map[string]int{"version": 1} },
	})
	nc, _ := testkit.JetStream(t, url)
	msg := ask(t, nc, Subject("walrelay"))
	if string(msg.Data) != `{"version":1}` || msg.Header.Get("Content-Type") != "application/json" {
		t.Errorf("it answers %s %v", msg.Data, msg.Header)
	}
	var info micro.Info
	if err := json.Unmarshal(ask(t, nc, "$SRV.INFO.walrelay").Data, &info); err != nil || info.Name != Name || info.Metadata["slot"] != "walrelay" ||
		len(info.Endpoints) != 1 || info.Endpoints[0].Subject != "walrelay.status.walrelay" {
		t.Errorf("INFO says %+v, %v", info, err)
	}
}

func TestRun_DocumentThatIsTooLarge(t *testing.T) {
	url := testkit.NATS(t, func(o *server.Options) { o.MaxPayload = 4096 }).URL()
	run(t, Options{
		NATS: config.NATS{URL: url}, Slot: "walrelay", Version: 1, Log: zerolog.Nop(),
		Status: func(context.Context) any { return strings.Repeat("x", 5000) },
	})
	nc, _ := testkit.JetStream(t, url)
	msg := ask(t, nc, Subject("walrelay"))
	if msg.Header.Get(micro.ErrorCodeHeader) != "500" || !strings.Contains(msg.Header.Get(micro.ErrorHeader), "max_payload") {
		t.Errorf("it answers %s %v", msg.Data, msg.Header)
	}
}

// A user without the rights is told so; nothing else happens.
func TestRun_WithoutRights(t *testing.T) {
	url := testkit.NATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "relay", Password: "a", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	}).URL()
	log := &child.Log{}
	run(t, Options{NATS: config.NATS{URL: url, User: "relay", Password: "a"}, Slot: "walrelay", Version: 1, Log: zerolog.New(log), Status: func(context.Context) any { return nil }})
	testkit.Eventually(t, 10*time.Second, "it says what lacks", func() error {
		if !strings.Contains(log.String(), "ermissions") {
			return fmt.Errorf("the log is %s", log)
		}
		return nil
	})
}
