package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/client"
)

// A CI job has its token in an environment variable.
func Example() {
	vault, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR and the like
	if err != nil {
		log.Fatal(err)
	}
	workload := client.Workload{Role: "dev", Token: client.TokenEnv("CI_JOB_JWT")}
	credentials, err := client.New(context.Background(), vault, workload)
	if err != nil {
		log.Fatal(err)
	}
	defer credentials.Close()

	conn, err := nats.Connect(credentials.URL(), nats.Name("orders"), credentials.Option())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Publish("orders.shop.new", []byte("an order")); err != nil {
		log.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("published, connected as", conn.Status())
}

// A pod has its token in a file that Kubernetes replaces before it ends: a projected
// service account token.
func Example_tokenFile() {
	vault, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	workload := client.Workload{
		Mount: "nats",
		Role:  "dev",
		Token: client.TokenFile(os.Getenv("TOKEN_FILE")), // such as /var/run/secrets/tokens/vault
	}
	credentials, err := client.New(context.Background(), vault, workload)
	if err != nil {
		log.Fatal(err)
	}
	defer credentials.Close()

	conn, err := nats.Connect(credentials.URL(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Print(err) }),
		credentials.Option())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	orders, err := conn.SubscribeSync("orders.shop.new")
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.Publish("orders.shop.new", []byte("an order")); err != nil {
		log.Fatal(err)
	}
	order, err := orders.NextMsgWithContext(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("got", string(order.Data))
}

// A service that logged in to Vault in any other way gets credentials of a role of type
// vault, as a lease of its Vault token.
func ExampleNewFromVaultToken() {
	vault, err := api.NewClient(api.DefaultConfig()) // VAULT_TOKEN too
	if err != nil {
		log.Fatal(err)
	}
	credentials, err := client.NewFromVaultToken(context.Background(), vault, client.Workload{Role: "services"})
	if err != nil {
		log.Fatal(err)
	}
	defer credentials.Close()

	conn, err := nats.Connect(credentials.URL(), credentials.Option())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println("connected:", conn.IsConnected())
}

// A Workload is a way to log in to Vault: the client then holds the login's token.
func ExampleWorkload_Login() {
	vault, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	workload := client.Workload{Role: "dev", Token: client.TokenEnv("CI_JOB_JWT")}
	secret, err := vault.Auth().Login(context.Background(), workload)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in with the role", secret.Auth.Metadata["role"])
}
