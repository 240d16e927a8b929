{{- /* Names and labels. The operator's own objects are `dragon-operator`; what it makes for a deployment is `dragon`. */ -}}

{{- define "dragon.fullname" -}}
{{- if .Values.nameOverride -}}
{{ .Values.nameOverride }}
{{- else if contains "operator" .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-operator" (.Release.Name | trunc 41 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{- define "dragon.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "dragon.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "dragon.selectorLabels" -}}
app.kubernetes.io/name: dragon-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dragon.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "dragon.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dragon
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "dragon.testName" -}}
{{ printf "%s-test" (include "dragon.fullname" .) }}
{{- end -}}

{{- define "dragon.subjects" }}
subjects:
  - kind: ServiceAccount
    name: {{ include "dragon.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
