//go:build !linux

package bench

import "syscall"

// dieWithParent does nothing where the system has no death signal.
func dieWithParent(*syscall.SysProcAttr) {}
