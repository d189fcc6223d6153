{{- define "walrelay.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "walrelay.selector" -}}
app.kubernetes.io/name: walrelay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "walrelay.labels" -}}
{{ include "walrelay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "walrelay.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "walrelay.serviceAccount" -}}
{{ if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "walrelay.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "walrelay.config" -}}
{{- with .Values.config }}{{ toYaml . }}{{ else }}# The defaults.{{ end }}
{{- end }}

{{/* What the values themselves give as a secret. */}}
{{- define "walrelay.secret" -}}
{{- if and (not .Values.postgres.existingSecret) .Values.postgres.url }}
postgres-url: {{ .Values.postgres.url | quote }}
{{- end }}
{{- if and (not .Values.nats.existingSecret) .Values.nats.url }}
nats-url: {{ .Values.nats.url | quote }}
{{- end }}
{{- end }}

{{- define "walrelay.check" -}}
{{- if not (or .Values.postgres.existingSecret .Values.postgres.url) }}
{{- fail "postgres.existingSecret or postgres.url: one of them must be set" }}
{{- end }}
{{- if not (or .Values.nats.existingSecret .Values.nats.url) }}
{{- fail "nats.existingSecret or nats.url: one of them must be set" }}
{{- end }}
{{- end }}

{{/* The environment of the relay; of init with a Secret and a key of its own for Postgres. */}}
{{- define "walrelay.env" -}}
- name: WALRELAY_POSTGRES_URL
  valueFrom:
    secretKeyRef: {name: {{ .postgresSecret | quote }}, key: {{ .postgresKey | quote }}}
- name: WALRELAY_NATS_URL
  valueFrom:
    secretKeyRef: {name: {{ .natsSecret | quote }}, key: {{ .natsKey | quote }}}
{{- with .root.Values.nats }}
{{- if .credsSecret }}
- {name: WALRELAY_NATS_CREDS_FILE, value: {{ printf "/etc/walrelay/nats/%s" .credsKey | quote }}}
{{- end }}
{{- if and .tlsSecret .tlsCA }}
- {name: WALRELAY_NATS_TLS_CA_FILE, value: /etc/walrelay/tls/ca.crt}
{{- end }}
{{- if and .tlsSecret .tlsClient }}
- {name: WALRELAY_NATS_TLS_CERT_FILE, value: /etc/walrelay/tls/tls.crt}
- {name: WALRELAY_NATS_TLS_KEY_FILE, value: /etc/walrelay/tls/tls.key}
{{- end }}
{{- end }}
{{- with .root.Values.console }}
{{- if .tokenSecret }}
- {name: WALRELAY_CONSOLE_TOKEN_FILE, value: {{ printf "/etc/walrelay/console/%s" .tokenKey | quote }}}
{{- end }}
{{- end }}
{{- with .root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "walrelay.volumeMounts" -}}
- {name: config, mountPath: /etc/walrelay/config, readOnly: true}
{{- if .Values.nats.credsSecret }}
- {name: nats, mountPath: /etc/walrelay/nats, readOnly: true}
{{- end }}
{{- if .Values.nats.tlsSecret }}
- {name: tls, mountPath: /etc/walrelay/tls, readOnly: true}
{{- end }}
{{- if .Values.console.tokenSecret }}
- {name: console, mountPath: /etc/walrelay/console, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "walrelay.volumes" -}}
- name: config
  configMap: {name: {{ .configMap | quote }}}
{{- with .root.Values.nats.credsSecret }}
- name: nats
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.nats.tlsSecret }}
- name: tls
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.console.tokenSecret }}
- name: console
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "walrelay.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "walrelay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
