package test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write deploy/kubernetes/walrelay.yaml anew")

// render returns the manifests of the chart, by file, in their order.
func render(t *testing.T, values string) ([]string, error) {
	t.Helper()
	chart, err := loader.Load("../helm/walrelay")
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, given, chartutil.ReleaseOptions{Name: "walrelay", Namespace: "default", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	var manifests []string
	for _, name := range []string{"service", "config", "init", "deployment", "monitoring"} {
		text := files["walrelay/templates/"+name+".yaml"]
		for doc := range strings.SplitSeq("\n"+text, "\n---") {
			if strings.Contains(doc, "kind: ") {
				manifests = append(manifests, strings.TrimSpace(doc))
			}
		}
	}
	return manifests, nil
}

// objects are the manifests, read strictly: a field that Kubernetes does not know is an error.
type objects map[string]any

func read(t *testing.T, manifests []string) objects {
	t.Helper()
	all := make(objects)
	for _, manifest := range manifests {
		var meta struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(manifest), &meta); err != nil {
			t.Fatalf("%v:\n%s", err, manifest)
		}
		into := map[string]any{
			"Deployment": &appsv1.Deployment{}, "Job": &batchv1.Job{}, "ConfigMap": &corev1.ConfigMap{}, "Secret": &corev1.Secret{}, "Service": &corev1.Service{},
			"ServiceAccount": &corev1.ServiceAccount{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{}, "NetworkPolicy": &networkingv1.NetworkPolicy{},
			"ServiceMonitor": &map[string]any{}, "PrometheusRule": &map[string]any{}, // of the Prometheus operator
		}[meta.Kind]
		if into == nil {
			t.Fatalf("a %s is not known", meta.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(manifest), into); err != nil {
			t.Errorf("%s: %v:\n%s", meta.Kind, err, manifest)
		}
		name := meta.Kind + "/" + meta.Metadata.Name
		if all[name] != nil {
			t.Errorf("there are two of %s", name)
		}
		all[name] = into
	}
	return all
}

const secrets = "postgres: {existingSecret: walrelay}\nnats: {existingSecret: walrelay}\n"

func TestChart_Default(t *testing.T) {
	manifests, err := render(t, secrets)
	if err != nil {
		t.Fatal(err)
	}
	all := read(t, manifests)
	deployment := all["Deployment/walrelay"].(*appsv1.Deployment)
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	for what, ok := range map[string]bool{
		"two instances":           *deployment.Spec.Replicas == 2,
		"a disruption budget":     all["PodDisruptionBudget/walrelay"] != nil,
		"init before":             all["Job/walrelay-init"].(*batchv1.Job).Annotations["helm.sh/hook"] == "pre-install,pre-upgrade",
		"a standby is ready":      container.ReadinessProbe.HTTPGet.Path == "/readyz?standby=ok",
		"what hangs is restarted": container.LivenessProbe.HTTPGet.Path == "/healthz",
		"not root":                *pod.SecurityContext.RunAsNonRoot && *container.SecurityContext.ReadOnlyRootFilesystem,
		"no token of the API":     !*pod.AutomountServiceAccountToken && !*pod.EnableServiceLinks,
		"a bound of memory":       container.Resources.Limits.Memory().String() == "256Mi",
		"longer than it shuts":    *pod.TerminationGracePeriodSeconds > 5,
		"nothing else":            len(all) == 7,
	} {
		if !ok {
			t.Errorf("want %s: %v", what, all)
		}
	}
	for _, env := range container.Env {
		if strings.HasSuffix(env.Name, "_URL") && (env.ValueFrom == nil || env.ValueFrom.SecretKeyRef.Name != "walrelay") {
			t.Errorf("%s does not come from the Secret", env.Name)
		}
	}
}

func TestChart_Values(t *testing.T) {
	manifests, err := render(t, `
postgres: {url: "postgres://relay@db/shop", init: {url: "postgres://owner@db/shop"}}
nats: {url: "nats://a,nats://b", credsSecret: creds, tlsSecret: tls, tlsCA: true, tlsClient: true}
console: {tokenSecret: console}
config: {slot: shop, outbox: {tables: [public.outbox]}}
image: {digest: "sha256:0123"}
env: [{name: GOMEMLIMIT, value: 200MiB}]
networkPolicy: {enabled: true, from: [{namespaceSelector: {matchLabels: {name: monitoring}}}], to: [{ipBlock: {cidr: 10.0.0.0/8}}]}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true}
extraVolumes: [{name: more, emptyDir: {}}]
extraVolumeMounts: [{name: more, mountPath: /more}]
tolerations: [{key: dedicated, operator: Exists}]
nodeSelector: {disk: ssd}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
imagePullSecrets: [{name: registry}]
podAnnotations: {a: b}
podLabels: {c: d}
serviceAccount: {annotations: {e: f}}
priorityClassName: high
`)
	if err != nil {
		t.Fatal(err)
	}
	all := read(t, manifests)
	init := all["Job/walrelay-init"].(*batchv1.Job).Spec.Template.Spec.Containers[0]
	secret := all["Secret/walrelay-init"].(*corev1.Secret)
	deployment := all["Deployment/walrelay"].(*appsv1.Deployment).Spec.Template.Spec
	from := func(env []corev1.EnvVar, name string) string {
		at := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == name })
		if at < 0 || env[at].ValueFrom == nil {
			return ""
		}
		ref := env[at].ValueFrom.SecretKeyRef
		return all["Secret/"+ref.Name].(*corev1.Secret).StringData[ref.Key]
	}
	for what, ok := range map[string]bool{
		"the owner's URL for init":  from(init.Env, "WALRELAY_POSTGRES_URL") == "postgres://owner@db/shop",
		"the relay's for the relay": from(deployment.Containers[0].Env, "WALRELAY_POSTGRES_URL") == "postgres://relay@db/shop",
		"NATS for both":             from(init.Env, "WALRELAY_NATS_URL") == "nats://a,nats://b" && from(deployment.Containers[0].Env, "WALRELAY_NATS_URL") == "nats://a,nats://b",
		"the digest":                init.Image == "ghcr.io/walrelay/walrelay@sha256:0123" && deployment.Containers[0].Image == init.Image,
		"secrets of its own":        secret.Annotations["helm.sh/hook"] != "",
		"the configuration":         strings.TrimSpace(all["ConfigMap/walrelay"].(*corev1.ConfigMap).Data["walrelay.yaml"]) == "outbox:\n  tables:\n  - public.outbox\nslot: shop",
		"volumes":                   len(deployment.Volumes) == 5 && len(init.VolumeMounts) == 5,
		"the token of the console":  slices.Contains(deployment.Containers[0].Env, corev1.EnvVar{Name: "WALRELAY_CONSOLE_TOKEN_FILE", Value: "/etc/walrelay/console/token"}),
		"a policy":                  len(all["NetworkPolicy/walrelay"].(*networkingv1.NetworkPolicy).Spec.Egress) == 2,
	} {
		if !ok {
			t.Errorf("want %s", what)
		}
	}
	rules := fmt.Sprint(*all["PrometheusRule/walrelay"].(*map[string]any))
	if !strings.Contains(rules, "WalrelayNotReady") || !strings.Contains(rules, "{{ $labels.stream }}") {
		t.Errorf("the rules are %s", rules)
	}
}

func TestChart_SaysWhatIsMissing(t *testing.T) {
	for values, want := range map[string]string{
		"":                              "postgres.existingSecret or postgres.url: one of them must be set",
		"postgres: {url: x}":            "nats.existingSecret or nats.url: one of them must be set",
		"postgres: {existingSecret: x}": "nats.existingSecret or nats.url",
		"nats: {url: x}\nreplicas: 1":   "postgres.existingSecret or postgres.url",
	} {
		if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", values, err, want)
		}
	}
	one, err := render(t, secrets+"replicas: 1\ninit: {enabled: false}\nserviceAccount: {create: false}\n")
	if err != nil {
		t.Fatal(err)
	}
	if all := read(t, one); all["PodDisruptionBudget/walrelay"] != nil || len(all) != 3 {
		t.Errorf("one instance without init has %v", all)
	}
}

// The plain manifests are the chart's, for a Secret called walrelay.
func TestPlainManifests(t *testing.T) {
	manifests, err := render(t, secrets)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# walrelay without Helm: what the chart of deploy/helm renders with its defaults.
#
#   kubectl create secret generic walrelay \
#     --from-literal=postgres-url='postgres://…' --from-literal=nats-url='nats://…'
#   kubectl apply -f walrelay.yaml
`)
	hooks := regexp.MustCompile(`(?m)^  annotations:\n(    helm\.sh/hook.*\n)+`)
	labels := regexp.MustCompile(`(?m)^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n`)
	for _, manifest := range manifests {
		if strings.Contains(manifest, "kind: ConfigMap\nmetadata:\n  name: walrelay-init\n") {
			continue // the job reads the relay's
		}
		manifest = labels.ReplaceAllString(hooks.ReplaceAllString(manifest+"\n", ""), "")
		manifest = strings.Replace(manifest, `configMap: {name: "walrelay-init"}`, `configMap: {name: "walrelay"}`, 1)
		b.WriteString("---\n" + manifest)
	}
	const path = "../kubernetes/walrelay.yaml"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	there, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(there) != b.String() {
		t.Errorf("%s is not what the chart renders: go test -update", path)
	}
	for _, doc := range strings.Split(string(there), "---\n")[1:] {
		read(t, []string{doc})
	}
}
