{{- /* The operator's settings file, in its own spelling. */ -}}
{{- define "dragon.settings" -}}
namespaces: {{ .Values.watchNamespaces | toJson }}
images:
  triton: {{ include "dragon.partImage" (list . .Values.images.triton "dragon-triton-cpu") | quote }}
  cloud_peer: {{ include "dragon.partImage" (list . .Values.images.cloudPeer "dragon-cloud") | quote }}
  broker: {{ include "dragon.partImage" (list . .Values.images.broker "dragon-broker") | quote }}
  milvus: {{ include "dragon.partImage" (list . .Values.images.milvus "dragon-milvus") | quote }}
  pull_policy: {{ .Values.image.pullPolicy }}
  pull_secrets:
    {{- range .Values.imagePullSecrets }}
    - {{ .name | quote }}
    {{- else }} []
    {{- end }}
resync_seconds: {{ .Values.settings.resyncSeconds }}
max_writes_per_second: {{ .Values.settings.maxWritesPerSecond }}
max_status_writes_per_second: {{ .Values.settings.maxStatusWritesPerSecond }}
metrics:
  host: 0.0.0.0
  port: 9465
log:
  level: {{ .Values.settings.log.level }}
  format: {{ .Values.settings.log.format }}
{{- end -}}
