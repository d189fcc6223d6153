package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// mount makes a small volume. Only root may.
func (w *World) mount(dir string, mebibytes int) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("making a volume: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mebibytes)); err != nil {
		return fmt.Errorf("mounting a volume at %s: %w", dir, err)
	}
	w.volumes = append(w.volumes, dir)
	return nil
}

func unmount(dir string) error {
	if err := syscall.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	return nil
}

// resize gives a volume another size.
func resize(ctx context.Context, dir string, mebibytes int) error {
	if out, err := exec.CommandContext(ctx, "mount", "-o", fmt.Sprintf("remount,size=%dm", mebibytes), dir).CombinedOutput(); err != nil {
		return fmt.Errorf("resizing %s: %w: %s", dir, err, out)
	}
	return nil
}

// ballast is the file that fills a volume.
const ballast = "ballast"

// fillVolume leaves no room.
func fillVolume(dir string) error {
	f, err := os.Create(filepath.Join(dir, ballast))
	if err != nil {
		return fmt.Errorf("filling a volume: %w", err)
	}
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				break
			}
			block = block[:len(block)/2]
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("filling a volume: %w", err)
	}
	return nil
}

func emptyVolume(dir string) error {
	if err := os.Remove(filepath.Join(dir, ballast)); err != nil {
		return fmt.Errorf("emptying a volume: %w", err)
	}
	return nil
}
