package plugin

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// nats-server leaves such imports out without a word to whoever wrote them, and so
// they would be stored and delivered, and never work.
func TestAnImportThatCouldNotWorkIsRefused(t *testing.T) {
	m := newAccountMount(t)
	key := func(name string) string { return m.read("jwt/" + name)["public_key"].(string) }
	for _, name := range []string{"billing", "other"} {
		m.write("jwt/"+name, map[string]any{"type": "account"})
	}
	m.write("jwt/orders", map[string]any{"config": `{"exports":[
		{"subject":"events.*.>","type":"stream","account_token_position":2},{"subject":"ask.*","type":"service","account_token_position":2},
		{"subject":"prices.*","type":"stream"},{"subject":"paid","type":"service","token_req":true}]}`})
	imports := func(format string, args ...any) map[string]any {
		return map[string]any{"config": fmt.Sprintf(`{"imports":[{"account":"%s",%s}]}`, key("orders"), fmt.Sprintf(format, args...))}
	}
	for fault, config := range map[string]map[string]any{
		`imports[0] has "` + key("other") + `" for token 2 of its subject, which has to be the public key of the account that imports, ` + key("billing"): imports(`"subject":"events.%s.>","type":"stream"`, key("other")),
		`imports[0] is of "ask.*", where token 2 has to be the public key of the account that imports`:                                                    imports(`"subject":"ask.*","type":"service","local_subject":"mine.*"`),
		`imports[0] names an unknown export: account "orders" exports no stream that holds "prices.>"`:                                                    imports(`"subject":"prices.>","type":"stream"`),
		`imports[0].local_subject goes to "in", which does not use every "*" of "prices.*"`:                                                               imports(`"subject":"prices.*","type":"stream","local_subject":"in"`),
		`imports[0].to is "in.*", which has a wildcard`:                                                                                                   imports(`"subject":"prices.*","type":"stream","to":"in.*"`),
	} {
		m.refuse(logical.UpdateOperation, "jwt/billing", config, fault)
	}
	m.write("jwt/billing", imports(`"subject":"events.%s.>","type":"stream"`, key("billing")))

	// A token is held against the exporter as it is now.
	token := m.write("jwt/orders/activation", map[string]any{"account": "billing", "subject": "paid", "type": "service"})["token"]
	paid := imports(`"subject":"paid","type":"service","token":"%s"`, token)
	m.write("jwt/billing", paid)
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	_, err := m.chain.Retire(t.Context(), m.storage, time.Now().Add(time.Hour))
	require.NoError(t, err)
	m.refuse(logical.UpdateOperation, "jwt/billing", paid, "imports[0] has a token that is signed by ")

	// What leads back is cut by servers, and who knows where.
	m.write("jwt/other", map[string]any{"config": `{"exports":[{"subject":"prices.*","type":"stream"}]}`})
	m.write("jwt/orders", map[string]any{"config": `{"exports":[{"subject":"prices.*","type":"stream"}],"imports":[{"account":"` + key("other") + `","subject":"prices.*","type":"stream"}]}`})
	m.refuse(logical.UpdateOperation, "jwt/other", map[string]any{"config": `{"exports":[{"subject":"prices.*","type":"stream"}],"imports":[{"account":"` + key("orders") + `","subject":"prices.*","type":"stream"}]}`},
		"imports[0] leads back to the account itself")

	m.refuse(logical.UpdateOperation, "jwt/SYS", map[string]any{"config": `{"limits":{"disk_storage":1000}}`},
		"config has JetStream limits, and nats-server does not turn JetStream on in the system account")
}
