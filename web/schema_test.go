package web

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/addr"
)

// element is a parsed XML element.
type element struct {
	name     xml.Name
	attrs    map[string]string
	text     string
	children []*element
}

// parseXML reads a document, which must be well formed and have one root.
func parseXML(t *testing.T, text string) *element {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = true
	root := &element{}
	stack := []*element{root}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well formed: %v in\n%s", err, text)
		}
		top := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name, attrs: map[string]string{}}
			for _, a := range token.Attr {
				if a.Name.Local != "xmlns" {
					e.attrs[a.Name.Local] = a.Value
				}
			}
			top.children = append(top.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.text += string(token)
		}
	}
	if len(root.children) != 1 {
		t.Fatalf("%d roots in\n%s", len(root.children), text)
	}
	return root.children[0]
}

// rule is what an element may hold. No XSD of these formats can be had offline: the rules are taken from the descriptions by
// their makers (Mozilla's page on the configuration file format; MS-OXDSCLI section 2.2.4 and Microsoft's reference of the POX
// elements) and read strictly: exactly these elements, in this order.
type rule struct {
	attrs    []string
	children []child
	text     func(string) bool // nil: none but blanks
}

type child struct {
	name     string
	min, max int
	rule     rule
}

func once(name string, r rule) child     { return child{name, 1, 1, r} }
func optional(name string, r rule) child { return child{name, 0, 1, r} }
func some(name string, r rule) child     { return child{name, 1, 10, r} }
func text(is func(string) bool) rule     { return rule{text: is} }
func anyText(s string) bool              { return strings.TrimSpace(s) != "" && s == strings.TrimSpace(s) }
func noText(s string) bool               { return s == "" }
func oneOf(values ...string) rule {
	return text(func(s string) bool { return slices.Contains(values, s) })
}
func isPort(s string) bool               { n, err := strconv.ParseUint(s, 10, 16); return err == nil && n > 0 }
func isHost(s string) bool               { d, err := addr.ParseDomain(s); return err == nil && d.ASCII() == s }
func isUser(s string) bool               { _, err := addr.Parse(s); return err == nil || s == anyAddress }
func (r rule) with(attrs ...string) rule { r.attrs = attrs; return r }
func elements(children ...child) rule    { return rule{children: children} }
func (e *element) at(path ...string) *element {
	for _, name := range path {
		i := slices.IndexFunc(e.children, func(c *element) bool { return c.name.Local == name })
		if i < 0 {
			return &element{}
		}
		e = e.children[i]
	}
	return e
}

// check returns what breaks the rule, with its place.
func (r rule) check(e *element, space, place string) error {
	place += "/" + e.name.Local
	if e.name.Space != space {
		return fmt.Errorf("%s is in namespace %q, not %q", place, e.name.Space, space)
	}
	for _, a := range r.attrs {
		if e.attrs[a] == "" {
			return fmt.Errorf("%s lacks the attribute %s", place, a)
		}
	}
	if len(e.attrs) != len(r.attrs) {
		return fmt.Errorf("%s has attributes %v, want %v", place, e.attrs, r.attrs)
	}
	if r.text != nil && !r.text(e.text) || r.text == nil && strings.TrimSpace(e.text) != "" {
		return fmt.Errorf("%s holds %q", place, e.text)
	}
	rest := e.children
	for _, c := range r.children {
		n := 0
		for n < len(rest) && n < c.max && rest[n].name.Local == c.name {
			if err := c.rule.check(rest[n], space, place); err != nil {
				return err
			}
			n++
		}
		if n < c.min {
			return fmt.Errorf("%s lacks %s where it belongs", place, c.name)
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%s holds %s, which does not belong there", place, rest[0].name.Local)
	}
	return nil
}

// mozillaRules are those of clientConfig 1.1.
func mozillaRules() rule {
	server := func(more ...child) rule {
		return elements(append([]child{
			once("hostname", text(isHost)), once("port", text(isPort)), once("socketType", oneOf("SSL", "STARTTLS")),
			once("username", text(isUser)), once("authentication", oneOf("password-cleartext")),
		}, more...)...).with("type")
	}
	return elements(once("emailProvider", elements(
		some("domain", text(isHost)), once("displayName", text(anyText)), once("displayShortName", text(anyText)),
		some("incomingServer", server(optional("pop3", elements(once("leaveMessagesOnServer", oneOf("true", "false")))))),
		some("outgoingServer", server()),
		optional("documentation", elements(some("descr", text(anyText).with("lang"))).with("url")),
	).with("id"))).with("version")
}

func checkMozilla(t *testing.T, document string) *element {
	t.Helper()
	e := parseXML(t, document)
	if err := mozillaRules().check(e, "", ""); err != nil || e.name.Local != "clientConfig" || e.attrs["version"] != "1.1" {
		t.Errorf("%s: %v in\n%s", e.name.Local, err, document)
	}
	return e
}

// checkOutlook looks at an answer to Outlook: settings, or an error. The two are in different namespaces.
func checkOutlook(t *testing.T, document string) *element {
	t.Helper()
	e := parseXML(t, document)
	if e.name.Local != "Autodiscover" || e.name.Space != responseSchema || len(e.children) != 1 {
		t.Fatalf("the root is %v in\n%s", e.name, document)
	}
	onOff := oneOf("on", "off")
	protocol := elements(
		once("Type", oneOf("POP3", "SMTP")), once("Server", text(isHost)), once("Port", text(isPort)), once("LoginName", text(isUser)),
		once("DomainRequired", onOff), once("SPA", onOff), once("SSL", onOff), once("Encryption", oneOf("SSL", "TLS")),
		once("AuthRequired", onOff), optional("UsePOPAuth", onOff), optional("SMTPLast", onOff),
	)
	settings := elements(
		once("User", elements(once("DisplayName", text(anyText)))),
		once("Account", elements(once("AccountType", oneOf("email")), once("Action", oneOf("settings")), child{"Protocol", 2, 2, protocol})),
	)
	refusal := elements(once("Error", elements(
		once("ErrorCode", oneOf("600", "601")), once("Message", text(anyText)), once("DebugData", text(noText)),
	).with("Time", "Id")))
	rules, space := settings, outlookSchema
	if e.at("Response", "Error").name.Local != "" {
		rules, space = refusal, responseSchema
	}
	if err := rules.check(e.children[0], space, "/Autodiscover"); err != nil {
		t.Errorf("%v in\n%s", err, document)
	}
	return e
}

// parsePlist reads a property list back.
func parsePlist(t *testing.T, document string) map[string]any {
	t.Helper()
	if !strings.Contains(document, `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN"`) {
		t.Error("the property list has no document type")
	}
	e := parseXML(t, document)
	if e.name.Local != "plist" || e.attrs["version"] != "1.0" || len(e.children) != 1 {
		t.Fatalf("no property list:\n%s", document)
	}
	value, err := plistValue(e.children[0])
	if err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	top, _ := value.(map[string]any)
	return top
}

func plistValue(e *element) (any, error) {
	switch e.name.Local {
	case "string":
		return e.text, nil
	case "integer":
		return strconv.Atoi(e.text)
	case "true", "false":
		return e.name.Local == "true", nil
	case "array":
		var all []any
		for _, c := range e.children {
			v, err := plistValue(c)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	case "dict":
		d := map[string]any{}
		if len(e.children)%2 != 0 {
			return nil, errors.New("a dictionary with a key without a value")
		}
		for i := 0; i < len(e.children); i += 2 {
			key := e.children[i]
			if _, twice := d[key.text]; key.name.Local != "key" || twice {
				return nil, fmt.Errorf("%s %q is no key, or one for the second time", key.name.Local, key.text)
			}
			v, err := plistValue(e.children[i+1])
			if err != nil {
				return nil, err
			}
			d[key.text] = v
		}
		return d, nil
	}
	return nil, fmt.Errorf("a property list has no %s", e.name.Local)
}

// TestRulesCanFail shows that the validators above see what is wrong.
func TestRulesCanFail(t *testing.T) {
	good := ask(newSite(t).HTTPS(), "GET", "https://autoconfig.example.org/mail/config-v1.1.xml", nil).body
	checkMozilla(t, good)
	for _, tc := range []struct{ name, old, new string }{
		{"no port", "<port>995</port>", ""},
		{"port 0", "<port>995</port>", "<port>0</port>"},
		{"order", "<hostname>mail.example.org</hostname>\n      <port>995</port>", "<port>995</port><hostname>mail.example.org</hostname>"},
		{"no encryption", ">SSL<", ">plain<"},
		{"no type", ` type="pop3"`, ""},
		{"a stranger", "<port>995</port>", "<port>995</port><x/>"},
		{"text", "<port>995</port>", "<port>995</port>x"},
		{"namespace", "<clientConfig ", `<clientConfig xmlns="urn:x" `},
	} {
		broken := strings.Replace(good, tc.old, tc.new, 1)
		if broken == good {
			t.Fatalf("%s: %q is not there", tc.name, tc.old)
		}
		if err := mozillaRules().check(parseXML(t, broken), "", ""); err == nil {
			t.Errorf("%s: not seen", tc.name)
		}
	}
}
