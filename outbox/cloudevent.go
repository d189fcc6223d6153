package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"github.com/walrelay/walrelay/event"
)

// FromCloudEvent returns an event of the CloudEvents SDK as one of this package, to be
// scheduled for instance. Its id must be a UUID. The extension partitionkey is the key.
func FromCloudEvent(ce cloudevents.Event) Event {
	ev := Event{
		ID: ce.ID(), Type: ce.Type(), Source: ce.Source(), Subject: ce.Subject(), Time: ce.Time(),
		ContentType: ce.DataContentType(), DataSchema: ce.DataSchema(),
	}
	for name, value := range ce.Extensions() {
		if key, ok := value.(string); ok && name == "partitionkey" {
			ev.Key = key
			continue
		}
		if ev.Extensions == nil {
			ev.Extensions = make(map[string]any)
		}
		if _, ok := value.(fmt.Stringer); ok {
			value = fmt.Sprint(value) // a time or a URI, by its canonical text
		}
		ev.Extensions[name] = value
	}
	data := ce.Data()
	switch {
	case data == nil:
	case ev.ContentType == "" && !ce.DataBase64 || event.IsJSON(ev.ContentType):
		ev.Data = json.RawMessage(data)
	default:
		ev.Data = data
	}
	return ev
}

// PublishCloudEvent is [Outbox.Publish] for an event of the CloudEvents SDK.
func (o Outbox) PublishCloudEvent(ctx context.Context, tx Tx, ce cloudevents.Event) (id string, err error) {
	return o.Publish(ctx, tx, FromCloudEvent(ce))
}
