package walrelay

import (
	"context"
	"io"

	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/tail"
)

// TailOptions say what [Tail] shows.
type TailOptions = tail.Options

// Tail shows the events of a stream as they arrive, in its order; of the configuration it needs how to reach NATS. Without a
// stream in the options it takes the first one of the configuration, and only messages that may be of the wanted types by
// publish.subject. It blocks until the context ends, or as the options say.
func Tail(ctx context.Context, cfg Config, o TailOptions, out io.Writer) error {
	cfg = cfg.WithDefaults()
	nc, err := connect.NATS(ctx, cfg.NATS)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := connect.JetStreamContext(nc, cfg.NATS)
	if err != nil {
		return err
	}
	if o.Stream == "" {
		o.Stream = cfg.Streams[0].Name
		// Routes may give other subjects: only if there are none the template says it all.
		if len(cfg.Routes) == 0 && !o.Types.TakesAll() {
			if o.Subjects, err = o.Types.Subjects(cfg.Publish.Subject); err != nil {
				return err
			}
		}
	}
	return tail.Run(ctx, js, o, out)
}
