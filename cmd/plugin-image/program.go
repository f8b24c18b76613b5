package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// machines are the platforms that an image can have programs for.
var machines = map[string]elf.Machine{
	"linux/amd64": elf.EM_X86_64,
	"linux/arm64": elf.EM_AARCH64,
}

// A program is the plugin's, for one platform.
type program struct {
	platform *v1.Platform
	text     []byte
}

// readProgram reads a program, which has to be one of the platform that it is said to be for, and static: nothing
// is in the image that it could be linked with.
func readProgram(platform, path string) (program, error) {
	machine, known := machines[platform]
	if !known {
		return program{}, fmt.Errorf("%q is no platform of the image: linux/amd64 and linux/arm64 are", platform)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return program{}, err
	}
	file, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		return program{}, fmt.Errorf("%s is no program for %s: %w", path, platform, err)
	}
	if file.Machine != machine {
		return program{}, fmt.Errorf("%s is no program for %s, but for %s", path, platform, file.Machine)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return program{}, fmt.Errorf("%s is not static: build it with CGO_ENABLED=0", path)
		}
	}
	parsed, err := v1.ParsePlatform(platform)
	return program{platform: parsed, text: text}, err
}

// sha256 is the checksum of the file, as OpenBao has it in a plugin's sha256sum.
func (p program) sha256() string {
	sum := sha256.Sum256(p.text)
	return hex.EncodeToString(sum[:])
}
