package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// programName is that of the program in the image's root directory, OpenBao's binary_name.
	programName = "vault-plugin-auth-nats"
	// user is nobody in particular. The plugin writes no file but its socket, which Vault makes it a folder for.
	user = "65532:65532"
)

// An image is the plugin's, for each of its platforms.
type image struct {
	index v1.ImageIndex
	ids   []v1.Hash // of the platforms' images, in the order of the programs
}

func makeImage(o options) (image, error) {
	text, err := roots()
	if err != nil {
		return image{}, err
	}
	certificates, err := layer(rootsPath, 0o444, text, o.created)
	if err != nil {
		return image{}, err
	}
	made := image{index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex)}
	for _, program := range o.programs {
		of, err := platformImage(o, program, certificates)
		if err != nil {
			return image{}, err
		}
		id, err := of.ConfigName()
		if err != nil {
			return image{}, err
		}
		made.ids = append(made.ids, id)
		made.index = mutate.AppendManifests(made.index, mutate.IndexAddendum{
			Add: of, Descriptor: v1.Descriptor{Platform: program.platform},
		})
	}
	made.index = mutate.Annotations(made.index, o.annotations()).(v1.ImageIndex)
	return made, nil
}

func platformImage(o options, p program, certificates v1.Layer) (v1.Image, error) {
	executable, err := layer(programName, 0o555, p.text, o.created)
	if err != nil {
		return nil, err
	}
	of := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	history := v1.History{Created: v1.Time{Time: o.created}, CreatedBy: "plugin-image"}
	of, err = mutate.Append(of, mutate.Addendum{Layer: certificates, History: history}, mutate.Addendum{Layer: executable, History: history})
	if err != nil {
		return nil, err
	}
	config, err := of.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: o.created}
	config.OS, config.Architecture = p.platform.OS, p.platform.Architecture
	config.Config = v1.Config{User: user, Entrypoint: []string{"/" + programName}, WorkingDir: "/", Labels: o.annotations()}
	if of, err = mutate.ConfigFile(of, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(of, o.annotations()).(v1.Image), nil
}

// annotations say what the image is, in the words of OCI's image specification.
func (o options) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       programName,
		"org.opencontainers.image.description": "Auth method for Vault and OpenBao that also issues NATS credentials",
		"org.opencontainers.image.licenses":    "MPL-2.0",
		"org.opencontainers.image.source":      o.source,
		"org.opencontainers.image.version":     o.version,
		"org.opencontainers.image.revision":    o.revision,
		"org.opencontainers.image.created":     o.created.Format(time.RFC3339),
	}
}

// write writes the image as an OCI image layout, in place of one that is there, but of nothing else.
func (i image) write(folder string) error {
	if entries, err := os.ReadDir(folder); err == nil && len(entries) > 0 {
		if _, err := layout.FromPath(folder); err != nil {
			return fmt.Errorf("%s is neither empty nor an OCI image layout", folder)
		}
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendIndex(i.index)
}

// tags are those that the two servers ask for: OpenBao for the version as it is, Vault for it without the v.
func tags(version string) []string {
	return []string{version, strings.TrimPrefix(version, "v")}
}

// push pushes the image, with the credentials that the user's container tools have stored for the registry.
func (i image) push(ctx context.Context, repository, version string) error {
	for _, tag := range tags(version) {
		ref, err := name.ParseReference(repository + ":" + tag)
		if err != nil {
			return err
		}
		if err := remote.WriteIndex(ref, i.index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
	}
	return nil
}

// print prints the checksums by which the servers know the image.
func (i image) print(out io.Writer, o options) error {
	digest, err := i.index.Digest()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(table, "version\t%s\nindex\t%s\n", o.version, digest.Hex)
	for n, program := range o.programs {
		_, _ = fmt.Fprintf(table, "%[1]s image\t%[2]s\n%[1]s program\t%[3]s\n", program.platform, i.ids[n].Hex, program.sha256())
	}
	return table.Flush()
}
