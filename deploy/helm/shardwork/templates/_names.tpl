{{/* Names and labels of everything in a release. */}}
{{- define "shardwork.name" -}}
{{- printf "%s-coordinator" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "shardwork.selector" -}}
app.kubernetes.io/name: shardwork
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: coordinator
{{- end -}}

{{- define "shardwork.labels" -}}
{{ include "shardwork.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "shardwork.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What one database of its own on one volume can't do. */}}
{{- define "shardwork.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.url) -}}
{{- fail "Several coordinators need one PostgreSQL: set database.url, or replicas: 1." -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.storage.url) -}}
{{- fail "Several coordinators need one artifact store: set storage.url, or replicas: 1." -}}
{{- end -}}
{{- end -}}

{{/* Variables of a coordinator and of the migrations' job. */}}
{{- define "shardwork.environment" -}}
{{- range $name, $value := .Values.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
- name: SHARDWORK_ADVERTISE
  value: {{ .Values.advertise | quote }}
- name: SHARDWORK_LISTEN
  value: 0.0.0.0:7070
- name: SHARDWORK_WEB
  value: 0.0.0.0:8080
- name: SHARDWORK_WEB_HOSTS
  value: {{ printf "%s-web %s" (include "shardwork.name" .) .Values.webHosts | trim | quote }}
- name: SHARDWORK_DATABASE
  value: {{ .Values.database.url | quote }}
- name: SHARDWORK_STORAGE
  value: {{ .Values.storage.url | quote }}
{{- end -}}

{{- define "shardwork.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "shardwork.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "shardwork.mounts" -}}
- {name: secrets, mountPath: /run/secrets/shardwork, readOnly: true}
- {name: run, mountPath: /run/shardwork}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "shardwork.volumes" -}}
- name: secrets
  secret:
    secretName: {{ .Values.secretName }}
    defaultMode: 0440
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: tmp
  emptyDir: {}
{{- end -}}
