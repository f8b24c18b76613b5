package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// token prints a token of the issuer's with the given claims.
func token(ctx context.Context, args []string) error {
	issuer := os.Getenv("ISSUER")
	if issuer == "" {
		return errors.New("ISSUER is not set: devstack dev prints it")
	}
	claims := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is no claim: it has no =", arg)
		}
		claims[name] = value
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, issuer+stack.TokenPath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the issuer answers %s: %s", response.Status, text)
	}
	fmt.Println(string(text))
	return nil
}

// natsFlags are the flags of pub and sub.
type natsFlags struct {
	*flag.FlagSet
	creds *string
	vault *string
	token *string
	count *int
}

func newNATSFlags(name string) natsFlags {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	return natsFlags{
		FlagSet: set,
		creds:   set.String("creds", "", "connect with this creds file"),
		vault:   set.String("vault", "", "connect as the named user at this path of Vault's, which signs for it"),
		token:   set.String("token", "", "present the workload's token in this file, and nothing else"),
		count:   set.Int("count", 0, "end after so many messages"),
	}
}

// connect connects to NATS_URL.
func (f natsFlags) connect() (*nats.Conn, error) {
	options := []nats.Option{
		nats.Timeout(10 * time.Second), nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // pub and sub ask for the last error
	}
	switch {
	case *f.creds != "" && *f.vault != "", *f.token != "" && *f.creds+*f.vault != "":
		return nil, errors.New("-creds, -vault and -token exclude each other")
	case *f.token != "":
		text, err := os.ReadFile(*f.token)
		if err != nil {
			return nil, err
		}
		options = append(options, nats.Token(strings.TrimSpace(string(text))))
	case *f.creds != "":
		options = append(options, nats.UserCredentials(*f.creds))
	case *f.vault != "":
		user, err := namedUser(*f.vault)
		if err != nil {
			return nil, err
		}
		options = append(options, user)
	}
	return nats.Connect(os.Getenv("NATS_URL"), options...)
}

// namedUser connects as a user whose key Vault holds.
func namedUser(path string) (nats.Option, error) {
	client, err := api.NewClient(nil)
	if err != nil {
		return nil, err
	}
	userJWT := func() (string, error) {
		secret, err := client.Logical().Read(path)
		return field(secret, err, path, "jwt")
	}
	sign := func(nonce []byte) ([]byte, error) {
		secret, err := client.Logical().Write(path+"/sign", map[string]any{"nonce": string(nonce)})
		signed, err := field(secret, err, path+"/sign", "signed_nonce")
		if err != nil {
			return nil, err
		}
		return base64.StdEncoding.DecodeString(signed)
	}
	return nats.UserJWT(userJWT, sign), nil
}

func field(secret *api.Secret, err error, path, name string) (string, error) {
	if err != nil {
		return "", err
	}
	if secret == nil {
		return "", fmt.Errorf("nothing at %s", path)
	}
	text, ok := secret.Data[name].(string)
	if !ok {
		return "", fmt.Errorf("the answer of %s has no %s", path, name)
	}
	return text, nil
}

// publish publishes one message and says what nats-server made of it.
func publish(args []string) error {
	flags := newNATSFlags("pub")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	if flags.NArg() != 2 {
		return errUsage
	}
	subject, text := flags.Arg(0), flags.Arg(1)
	conn, err := flags.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Publish(subject, []byte(text)); err != nil {
		return err
	}
	// The server answers in order: a refusal is here before the answer to the flush.
	if err := errors.Join(conn.Flush(), conn.LastError()); err != nil {
		return err
	}
	fmt.Printf("published %d bytes to %s\n", len(text), subject)
	return nil
}

// subscribe prints messages until it has enough of them or the context ends.
func subscribe(ctx context.Context, args []string) error {
	flags := newNATSFlags("sub")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	if flags.NArg() != 1 {
		return errUsage
	}
	conn, err := flags.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	subscription, err := conn.SubscribeSync(flags.Arg(0))
	if err != nil {
		return err
	}
	if err := errors.Join(conn.Flush(), conn.LastError()); err != nil {
		return err
	}
	fmt.Println("subscribed to", flags.Arg(0))
	for received := 0; *flags.count == 0 || received < *flags.count; received++ {
		message, err := subscription.NextMsgWithContext(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("received on %s: %s\n", message.Subject, message.Data)
	}
	return nil
}
