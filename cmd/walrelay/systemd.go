package main

import (
	"context"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay"
)

// notifyInterval is how often systemd is told how the relay is doing, if its watchdog does not ask
// for more.
const notifyInterval = 5 * time.Second

// notifySystemd tells systemd that the service is up, what it does, and, until the context ends, that it
// does not hang (sd_notify(3)). Outside of systemd it does nothing.
func notifySystemd(ctx context.Context, log zerolog.Logger, relay *walrelay.Relay) {
	tell := func(states ...string) bool {
		sent, err := daemon.SdNotify(false, strings.Join(states, "\n"))
		if err != nil {
			log.Warn().Err(err).Msg("systemd cannot be told how the relay is doing")
		}
		return sent
	}
	if !tell(daemon.SdNotifyReady, "STATUS=starting") {
		return
	}
	interval := notifyInterval
	if limit, err := daemon.SdWatchdogEnabled(false); err == nil && limit > 0 {
		interval = min(interval, limit/3)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var last string
	for {
		status := strings.Join(relay.Ready(), "; ")
		if status == "" {
			status = "streaming"
		}
		hung := relay.Hung()
		if hung != "" {
			status = hung
		}
		var states []string
		if status != last {
			states = append(states, "STATUS="+strings.Join(strings.Fields(status), " "))
			last = status
		}
		if hung == "" {
			states = append(states, daemon.SdNotifyWatchdog)
		}
		if len(states) > 0 {
			tell(states...)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			tell(daemon.SdNotifyStopping, "STATUS=waiting for what is in flight")
			return
		}
	}
}
