// Package test renders the Helm chart as Helm does, and reads what comes out as Kubernetes does. It is a
// module of its own, so that walrelay does not depend on Helm.
package test
