package web

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rsc.io/qr"
)

// checkProfile holds a configuration profile to what Apple's reference requires of it.
func checkProfile(t *testing.T, document string) map[string]any {
	t.Helper()
	top := parsePlist(t, document)
	content, _ := top["PayloadContent"].([]any)
	if len(content) != 1 {
		t.Fatalf("%d payloads", len(content))
	}
	account, _ := content[0].(map[string]any)
	for _, d := range []map[string]any{top, account} {
		for _, key := range []string{"PayloadIdentifier", "PayloadType", "PayloadUUID", "PayloadVersion"} {
			if d[key] == nil || d[key] == "" {
				t.Errorf("%s is missing in %v", key, d)
			}
		}
		if id, _ := d["PayloadUUID"].(string); !regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-5[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`).MatchString(id) {
			t.Errorf("%q is no UUID of version 5", id)
		}
	}
	if top["PayloadType"] != "Configuration" || account["PayloadType"] != "com.apple.mail.managed" || top["PayloadUUID"] == account["PayloadUUID"] {
		t.Errorf("types %v and %v", top["PayloadType"], account["PayloadType"])
	}
	for key, want := range map[string]any{
		"EmailAccountType":                 "EmailTypePOP",
		"IncomingMailServerAuthentication": "EmailAuthPassword", "IncomingMailServerUseSSL": true, "IncomingMailServerHostName": host,
		"OutgoingMailServerAuthentication": "EmailAuthPassword", "OutgoingMailServerUseSSL": true, "OutgoingMailServerHostName": host,
		"OutgoingPasswordSameAsIncomingPassword": true, "IncomingMailServerUsername": account["EmailAddress"], "OutgoingMailServerUsername": account["EmailAddress"],
	} {
		if account[key] != want {
			t.Errorf("%s is %v, want %v", key, account[key], want)
		}
	}
	if strings.Contains(strings.ToLower(document), "<key>incomingpassword") {
		t.Error("there is a password in it")
	}
	return account
}

// checkPage holds the settings page to its own rules: nothing from elsewhere, nothing that runs.
func checkPage(t *testing.T, a answer) {
	t.Helper()
	for _, never := range []string{"<script", "javascript:", "<iframe", "http://", "<img", "@import", "style=", " on"} {
		if never == " on" {
			if regexp.MustCompile(`<[^>]* on[a-z]+=`).MatchString(a.body) {
				t.Error("the page has an event handler")
			}
			continue
		}
		if strings.Contains(strings.ToLower(a.body), never) {
			t.Errorf("the page has %s", never)
		}
	}
	policy := a.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("content security policy %q", policy)
	}
}

// TestPorts has a row for each way in which a server can be reached, and looks at all documents.
func TestPorts(t *testing.T) {
	for _, tc := range []struct {
		name             string
		ports            Ports
		in, out          string // port and encryption
		inPort, outPort  int
		complete         bool
		outlookIn, pageS string
	}{
		{"all", Ports{995, 110, 465, 587}, "SSL", "SSL", 995, 465, true, "SSL", "SSL/TLS"},
		{"TLS from the first octet only", Ports{POP3S: 2995, Submissions: 2465}, "SSL", "SSL", 2995, 2465, true, "SSL", "SSL/TLS"},
		{"STARTTLS only", Ports{POP3: 110, Submission: 587}, "STARTTLS", "STARTTLS", 110, 587, true, "TLS", "STARTTLS"},
		{"no sending", Ports{POP3S: 995}, "", "", 0, 0, false, "", ""},
		{"no fetching", Ports{Submissions: 465}, "", "", 0, 0, false, "", ""},
		{"none", Ports{}, "", "", 0, 0, false, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newSite(t, func(o *Options) { o.Ports = tc.ports }).HTTPS()
			mozilla := get(h, "https://autoconfig.example.org/mail/config-v1.1.xml")
			outlook := ask(h, http.MethodPost, "https://autodiscover.example.org/autodiscover/autodiscover.xml", strings.NewReader(outlookAsks("anna@example.org")))
			apple := get(h, "https://mail.example.org/profile.mobileconfig?emailaddress=anna%40example.org")
			page := get(h, "https://mail.example.org/settings")
			if !tc.complete {
				for _, a := range []answer{mozilla, outlook, apple, page} {
					if a.status != http.StatusNotFound {
						t.Errorf("got %s", a)
					}
				}
				return
			}
			m := checkMozilla(t, mozilla.body).at("emailProvider")
			for path, want := range map[string][2]string{"incomingServer": {tc.in, strconv.Itoa(tc.inPort)}, "outgoingServer": {tc.out, strconv.Itoa(tc.outPort)}} {
				if got := m.at(path, "socketType").text; got != want[0] || m.at(path, "port").text != want[1] {
					t.Errorf("%s: %s on %s, want %v", path, got, m.at(path, "port").text, want)
				}
			}
			account := checkOutlook(t, outlook.body).at("Response", "Account")
			for i, port := range []int{tc.inPort, tc.outPort} {
				p := account.children[2+i]
				if p.at("Port").text != strconv.Itoa(port) || p.at("Encryption").text != tc.outlookIn || p.at("SSL").text != "on" {
					t.Errorf("Outlook reads %s", outlook)
				}
			}
			if a := checkProfile(t, apple.body); a["IncomingMailServerPortNumber"] != tc.inPort || a["OutgoingMailServerPortNumber"] != tc.outPort {
				t.Errorf("Apple reads %v", a)
			}
			if !strings.Contains(page.body, "<code>"+strconv.Itoa(tc.inPort)+"</code>") || !strings.Contains(page.body, tc.pageS) {
				t.Errorf("people read %s", page)
			}
		})
	}
}

// outlookAsks is a request for an address.
func outlookAsks(address string) string {
	return `<?xml version="1.0" encoding="utf-8"?><Autodiscover xmlns="` + requestSchema + `"><Request><EMailAddress>` + escaped(address) +
		`</EMailAddress><AcceptableResponseSchema>` + outlookSchema + `</AcceptableResponseSchema></Request></Autodiscover>`
}

// TestStableIDs shows that a profile that is installed again replaces the one before, and no other.
func TestStableIDs(t *testing.T) {
	seen := map[string]string{}
	for _, what := range []string{"account", "profile"} {
		for _, address := range []string{"anna@example.org", "ben@example.org", "anna@other.example"} {
			id := stableID(what, mailbox(address))
			if other, ok := seen[id]; ok {
				t.Errorf("%s %s and %s have one id", what, address, other)
			}
			seen[id] = what + " " + address
			if again := stableID(what, mailbox(strings.ToUpper(address))); again != id {
				t.Errorf("%s in capitals has another id", address)
			}
		}
	}
	// Devices out there know this one: it must never become another.
	if got, want := stableID("account", mailbox("anna@example.org")), "9DB16F8C-5454-50FC-B275-D22E882C3B32"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestOutlookRequests has a row for each kind of request that is none.
func TestOutlookRequests(t *testing.T) {
	const activeSync = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"
	good := outlookAsks("anna@example.org")
	for _, tc := range []struct {
		name, body string
		code       string // "": it is answered
	}{
		{"good", good, ""},
		{"no schema asked for", strings.Replace(good, outlookSchema, "", 1), ""},
		{"blanks", strings.Replace(good, "anna@example.org", "\n  anna@example.org\n", 1), ""},
		{"empty", "", "600"},
		{"no XML", "hello", "600"},
		{"cut off", good[:len(good)-9], "600"},
		{"another document", "<a/>", "600"},
		{"another charset", strings.Replace(good, "utf-8", "ebcdic", 1), "600"},
		{"an entity of its own", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>` + strings.Replace(good, "anna@", "&x;@", 1), "600"},
		{"no address", outlookAsks(""), "600"},
		{"no mail address", outlookAsks("anna"), "600"},
		{"an address literal", outlookAsks("anna@[192.0.2.1]"), "600"},
		{"no namespace", strings.Replace(good, requestSchema, "", 1), "601"},
		{"another schema", strings.Replace(good, requestSchema, responseSchema, 1), "601"},
		{"another answer", strings.Replace(good, outlookSchema, activeSync, 1), "601"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(newSite(t).HTTPS(), http.MethodPost, "https://autodiscover.example.org/Autodiscover/Autodiscover.XML", strings.NewReader(tc.body))
			if a.status != http.StatusOK {
				t.Fatalf("got %s", a)
			}
			e := checkOutlook(t, a.body)
			if got := e.at("Response", "Error", "ErrorCode").text; got != tc.code {
				t.Errorf("error %q, want %q", got, tc.code)
			}
			if tc.code == "" && e.at("Response", "User", "DisplayName").text != "anna@example.org" {
				t.Errorf("got %s", a)
			}
		})
	}
}

// TestInjection shows that an address stays text in each document.
func TestInjection(t *testing.T) {
	const address = `"<script>alert(1)</script>&'\"]]>"@example.org`
	login := mailbox(address).String()
	query := "?emailaddress=" + escapeQuery(address)
	h := newSite(t).HTTPS()
	m := checkMozilla(t, get(h, "https://autoconfig.example.org/mail/config-v1.1.xml"+query).body)
	if got := m.at("emailProvider", "incomingServer", "username").text; got != login {
		t.Errorf("Mozilla reads %q", got)
	}
	o := checkOutlook(t, ask(h, http.MethodPost, "https://autodiscover.example.org/autodiscover/autodiscover.xml", strings.NewReader(outlookAsks(address))).body)
	if got := o.at("Response", "Account", "Protocol", "LoginName").text; got != login {
		t.Errorf("Outlook reads %q", got)
	}
	if a := checkProfile(t, get(h, "https://mail.example.org/profile.mobileconfig"+query).body); a["EmailAddress"] != login {
		t.Errorf("Apple reads %q", a["EmailAddress"])
	}
	page := get(h, "https://mail.example.org/settings"+query)
	checkPage(t, page)
	if page.status != http.StatusOK || !strings.Contains(page.body, "&lt;script&gt;") {
		t.Errorf("people read %s", page)
	}
}

func escapeQuery(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString("%" + strings.ToUpper(strconv.FormatInt(int64(s[i])|0x100, 16)[1:]))
	}
	return b.String()
}

// TestQR draws the path again and compares it with the code.
func TestQR(t *testing.T) {
	const url = "https://mail.example.org/settings?emailaddress=anna%40example.org"
	code, err := qr.Encode(url, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	drawn := draw(url)
	if drawn.Side != code.Size+2*quiet {
		t.Fatalf("%d units a side, the code has %d", drawn.Side, code.Size)
	}
	dark := map[[2]int]bool{}
	for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(drawn.Path, -1) {
		var n [4]int
		for i := range n {
			n[i], _ = strconv.Atoi(m[i+1]) // digits
		}
		for x := n[0]; x < n[0]+n[2]; x++ {
			dark[[2]int{x, n[1]}] = true
		}
		if n[2] != n[3] {
			t.Errorf("%s does not close", m[0])
		}
	}
	for y := range drawn.Side {
		for x := range drawn.Side {
			if dark[[2]int{x, y}] != code.Black(x-quiet, y-quiet) {
				t.Fatalf("%d %d is wrong", x, y)
			}
		}
	}
	if draw(strings.Repeat("x", 5000)) != nil {
		t.Error("a text that is too long was drawn")
	}
}

// TestDiscover has a row for each form of the second version of Autodiscover.
func TestDiscover(t *testing.T) {
	for _, tc := range []struct {
		url    string
		status int
		want   string
	}{
		{"https://autodiscover.example.org/autodiscover/autodiscover.json?Email=anna%40example.org&Protocol=AutodiscoverV1", 200, "https://autodiscover.example.org/autodiscover/autodiscover.xml"},
		{"https://example.org/Autodiscover/Autodiscover.json?email=anna%40example.org&protocol=autodiscoverv1", 200, "https://example.org/autodiscover/autodiscover.xml"},
		{"https://mail.example.org/autodiscover/autodiscover.json/v1.0/anna%40example.org?Protocol=AutodiscoverV1", 200, "https://mail.example.org/autodiscover/autodiscover.xml"},
		{"https://mail.example.org/autodiscover/autodiscover.json?Protocol=AutodiscoverV1", 200, "https://mail.example.org/autodiscover/autodiscover.xml"},
		{"https://autodiscover.example.org/autodiscover/autodiscover.json?Email=anna%40example.org&Protocol=Ews", 400, ""},
		{"https://autodiscover.example.org/autodiscover/autodiscover.json?Email=anna%40example.org&Protocol=%3Cb%3E", 400, ""},
		{"https://autodiscover.example.org/autodiscover/autodiscover.json?Email=anna%40example.org", 400, ""},
	} {
		a := get(newSite(t).HTTPS(), tc.url)
		var got struct{ Protocol, URL, ErrorCode, ErrorMessage string }
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Errorf("%s: %v in %s", tc.url, err, a)
		}
		if a.status != tc.status || got.URL != tc.want || (got.ErrorCode == "InvalidProtocol") != (tc.status == 400) || strings.Contains(a.body, "<b>") {
			t.Errorf("%s: %s", tc.url, a)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(outlookAsks("anna@example.org"))
	f.Add("<a/>")
	f.Add("")
	f.Fuzz(func(t *testing.T, body string) {
		address, problem, err := readRequest(http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(body)), maxBody))
		if large := (*http.MaxBytesError)(nil); err != nil && !errors.As(err, &large) {
			t.Fatalf("got %v", err)
		}
		if problem != 0 && address != "" {
			t.Fatalf("both %q and %d", address, problem)
		}
		if err := xml.EscapeText(io.Discard, []byte(address)); err != nil {
			t.Fatal(err)
		}
	})
}
