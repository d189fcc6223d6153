package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/diode"

	"github.com/walrelay/walrelay"
)

// newLogger returns the logger that log.level and log.format ask for.
func newLogger(cfg walrelay.Config, w io.Writer) (zerolog.Logger, error) {
	cfg = cfg.WithDefaults()
	level, err := zerolog.ParseLevel(cfg.Log.Level)
	if err != nil {
		return zerolog.Nop(), &walrelay.ConfigError{Key: "log.level", Problem: fmt.Sprintf("%q is no level", cfg.Log.Level)}
	}
	file, ok := w.(*os.File)
	terminal := ok && isatty.IsTerminal(file.Fd())
	if cfg.Log.Format == "console" || cfg.Log.Format == "auto" && terminal {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger(), nil
}

const (
	// logLines is how many lines wait for a standard error that does not take them;
	// more are left out, and counted.
	logLines = 4096
	// logGrace is how long the last lines may take at the end.
	logGrace = time.Second
)

// newPatientLogger is newLogger for a process that must not wait for its standard
// error. Its lines are written by another goroutine, until flush is called.
func newPatientLogger(cfg walrelay.Config, w io.Writer) (log zerolog.Logger, flush func(), err error) {
	file, isFile := w.(*os.File)
	if isFile && isatty.IsTerminal(file.Fd()) {
		// A person looks on, and may hold the output up.
		log, err = newLogger(cfg, w)
		return log, func() {}, err
	}
	queue := diode.NewWriter(w, logLines, 0, func(missed int) {
		fmt.Fprintf(w, "{\"level\":\"warn\",\"lines\":%d,\"message\":\"log lines left out: standard error did not take them\"}\n", missed)
	})
	log, err = newLogger(cfg, queue)
	return log, func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = queue.Close() // nothing can be done about lines that cannot be written
		}()
		select {
		case <-done:
		case <-time.After(logGrace):
		}
	}, err
}

// logReport logs what init did.
func logReport(log zerolog.Logger, report walrelay.Report) {
	for _, item := range report.Items {
		event := log.Info().Str("kind", item.Kind).Str("name", item.Name).Str("action", string(item.Action))
		if item.Detail != "" {
			event = event.Str("detail", item.Detail)
		}
		event.Msg("init")
	}
	for _, warning := range report.Warnings {
		log.Warn().Msg(warning)
	}
}
