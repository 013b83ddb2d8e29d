#!/usr/bin/env bash
# Makes the collector's certificate (Secret toe-system/toe-collector-tls: tls.crt, tls.key, ca.crt), or renews it.
#
#   deploy/make-tls.sh [DAYS]        # 825 days unless told; needs kubectl and openssl
#
# The CA is made for this one certificate and its key is thrown away. When a certificate is renewed, ca.crt keeps the
# previous CA beside the new one, because the two programs see the new Secret up to a minute apart.
set -euo pipefail

days=${1:-825}
namespace=toe-system
secret=toe-collector-tls
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 700 "$work"

kubectl get namespace "$namespace" > /dev/null 2>&1 || kubectl apply -f "$here/foundation/namespaces.yaml"

cat > "$work/openssl.cnf" << CONFIG
[req]
distinguished_name = name
prompt = no
[name]
CN = toe-collector.$namespace.svc
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:toe-collector, DNS:toe-collector.$namespace, DNS:toe-collector.$namespace.svc, DNS:toe-collector.$namespace.svc.cluster.local, DNS:localhost
CONFIG

openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -sha256 -days "$days" -subj "/CN=toe-ca $(date -u +%Y%m%d%H%M%S)" \
    -config "$work/openssl.cnf" -extensions ca -out "$work/new-ca.crt"
openssl ecparam -name prime256v1 -genkey -noout -out "$work/tls.key"
openssl req -new -key "$work/tls.key" -config "$work/openssl.cnf" -out "$work/leaf.csr"
openssl x509 -req -in "$work/leaf.csr" -CA "$work/new-ca.crt" -CAkey "$work/ca.key" -CAcreateserial -sha256 -days "$days" \
    -extfile "$work/openssl.cnf" -extensions leaf -out "$work/tls.crt" 2> /dev/null

cp "$work/new-ca.crt" "$work/ca.crt"
# Of what was there only the newest CA stays: the first certificate of the file.
kubectl -n "$namespace" get secret "$secret" -o 'jsonpath={.data.ca\.crt}' 2> /dev/null | base64 -d \
    | sed '/-----END CERTIFICATE-----/q' >> "$work/ca.crt" || true

kubectl -n "$namespace" create secret generic "$secret" --type=kubernetes.io/tls --dry-run=client -o yaml \
    --from-file=tls.crt="$work/tls.crt" --from-file=tls.key="$work/tls.key" --from-file=ca.crt="$work/ca.crt" \
    | kubectl apply --server-side --force-conflicts --field-manager=make-tls -f -
