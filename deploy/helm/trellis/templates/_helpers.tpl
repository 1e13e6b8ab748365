{{- define "trellis.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "trellis.labels" -}}
app.kubernetes.io/name: trellis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What the Service and the others choose: the pods that clients ask. */}}
{{- define "trellis.serving" -}}
{{ include "trellis.labels" . }}
trellis/role: leader
{{- end }}

{{- define "trellis.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ if .access.tlsSecret }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{/* A pod; `role`: leader, who is asked, or worker. */}}
{{- define "trellis.pod" -}}
{{- $leads := eq .role "leader" -}}
{{- with .root -}}
metadata:
  labels:
    {{- include "trellis.labels" . | nindent 4 }}
    trellis/role: {{ $.role }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  # The pause before SIGTERM, --drain_timeout, and what the launcher needs beyond it.
  terminationGracePeriodSeconds: {{ add .Values.drainTimeout 20 }}
  automountServiceAccountToken: false
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 1000
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: trellis
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - --world_size
        - {{ mul (max 1 .Values.gpus) .Values.group.size | quote }}
        - --drain_timeout
        - {{ .Values.drainTimeout | quote }}
        {{- if $leads }}
        {{- if .Values.access.apiKeysSecret }}
        - --api-keys
        - /etc/trellis/keys/keys.yaml
        {{- end }}
        {{- if .Values.access.tlsSecret }}
        - --tls-cert
        - /etc/trellis/tls/tls.crt
        - --tls-key
        - /etc/trellis/tls/tls.key
        {{- end }}
        {{- if .Values.access.clientCaSecret }}
        - --tls-client-ca
        - /etc/trellis/clients/ca.crt
        {{- end }}
        {{- range .Values.access.corsOrigins }}
        - --cors-origin
        - {{ . | quote }}
        {{- end }}
        {{- range .Values.access.allowedHosts }}
        - --allowed-host
        - {{ . | quote }}
        {{- end }}
        {{- if .Values.metrics.enabled }}
        - --metrics_address
        - 0.0.0.0
        - --metrics_port
        - {{ .Values.metrics.port | quote }}
        {{- end }}
        {{- end }}
        {{- range .Values.args }}
        - {{ . | quote }}
        {{- end }}
      {{- if $leads }}
      ports:
        - {name: http, containerPort: 8000}
        {{- if .Values.metrics.enabled }}
        - {name: metrics, containerPort: {{ .Values.metrics.port }}}
        {{- end }}
      startupProbe:
        {{- include "trellis.probe" (dict "path" "/v2/health/startup" "access" .Values.access) | nindent 8 }}
        periodSeconds: 5
        failureThreshold: {{ div .Values.startupSeconds 5 }}
      readinessProbe:
        {{- include "trellis.probe" (dict "path" "/v2/health/ready" "access" .Values.access) | nindent 8 }}
        periodSeconds: 5
      livenessProbe:
        {{- include "trellis.probe" (dict "path" "/v2/health/live" "access" .Values.access) | nindent 8 }}
        periodSeconds: 10
        failureThreshold: 3
      lifecycle:
        preStop: # until the Service has stopped sending here
          exec: {command: ["sleep", "5"]}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        requests: {{- toYaml .Values.resources.requests | nindent 10 }}
        limits:
          {{- with .Values.resources.limits }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
          nvidia.com/gpu: {{ .Values.gpus }}
      volumeMounts:
        - {name: models, mountPath: /triton_model_repo, readOnly: true}
        - {name: shm, mountPath: /dev/shm}
        - {name: tmp, mountPath: /tmp}
        {{- if and $leads .Values.access.apiKeysSecret }}
        - {name: keys, mountPath: /etc/trellis/keys, readOnly: true}
        {{- end }}
        {{- if and $leads .Values.access.tlsSecret }}
        - {name: tls, mountPath: /etc/trellis/tls, readOnly: true}
        {{- end }}
        {{- if and $leads .Values.access.clientCaSecret }}
        - {name: clients, mountPath: /etc/trellis/clients, readOnly: true}
        {{- end }}
  volumes:
    - name: models
      persistentVolumeClaim: {claimName: {{ .Values.models.claim }}, readOnly: true}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ .Values.shm }}}
    - name: tmp
      emptyDir: {sizeLimit: 2Gi}
    {{- if and $leads .Values.access.apiKeysSecret }}
    - name: keys
      secret: {secretName: {{ .Values.access.apiKeysSecret }}, defaultMode: 0440}
    {{- end }}
    {{- if and $leads .Values.access.tlsSecret }}
    - name: tls
      secret: {secretName: {{ .Values.access.tlsSecret }}, defaultMode: 0440}
    {{- end }}
    {{- if and $leads .Values.access.clientCaSecret }}
    - name: clients
      secret: {secretName: {{ .Values.access.clientCaSecret }}, defaultMode: 0440}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
