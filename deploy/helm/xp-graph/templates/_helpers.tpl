{{- define "xp-graph.name" -}}
{{- printf "%s" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "xp-graph.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "xp-graph.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "xp-graph.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "xp-graph.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "xp-graph.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "xp-graph.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What pods of the server and of its migrations have in common. */}}
{{- define "xp-graph.pod" -}}
serviceAccountName: {{ include "xp-graph.serviceAccount" . }}
automountServiceAccountToken: false
# Variables that a Service of this name would set are not for this program.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "xp-graph.container" -}}
image: {{ include "xp-graph.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
env:
  - { name: HOST, value: 0.0.0.0 }
  - { name: PORT, value: "8080" }
  - { name: XP_HTTP_METRICS_ADDRESS, value: "0.0.0.0:{{ .Values.metrics.port }}" }
  - { name: XP_HTTP_DRAIN_DELAY, value: "{{ .Values.drainDelaySeconds }}s" }
  - { name: XP_HTTP_SHUTDOWN_GRACE, value: "{{ .Values.shutdownGraceSeconds }}s" }
  - name: DATABASE_URL
    valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: DATABASE_URL } }
  {{- range $key := list "DATABASE_DIRECT_URL" "DATABASE_REPLICA_URLS" }}
  - name: {{ $key }}
    valueFrom: { secretKeyRef: { name: {{ $.Values.existingSecret }}, key: {{ $key }}, optional: true } }
  {{- end }}
  - name: XP_AUTH_SECRET
    valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: XP_AUTH_SECRET } }
  - name: REDIS_URL
    valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: REDIS_URL, optional: true } }
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - { name: config, mountPath: /etc/xp-graph, readOnly: true }
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Weights of a route to this release's Service and to the canary's. */}}
{{- define "xp-graph.stableWeight" -}}
{{- if .serviceName }}{{ sub 100 .weight }}{{ else }}100{{ end -}}
{{- end -}}
