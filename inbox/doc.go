// Package inbox reads events on the side of those who consume a stream.
//
// Input: messages of a stream that walrelay publishes into, or any other message of
// the CloudEvents binding for NATS. Output: events. Promises: both content modes are
// read, attributes are decoded as the binding says, and what is no event is an error. It
// must not import the relay.
package inbox
