//go:build !linux

package child

import "syscall"

// dieWithParent does nothing where the system has no death signal.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
