// What our TLS listeners speak (API and console, PostgreSQL, TCP targets): TLS 1.2 and 1.3, and nothing that
// a scanner warns of. Node's own list has CBC with SHA-1 for clients of twenty years ago, and a group of 112
// bits; every client that is in use has one of these. As a client, towards targets, Node's list stays: what
// a target has is not ours to choose.

export const listenerTls = {
  minVersion: 'TLSv1.2',
  ciphers: [
    'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256',
    'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256',
    'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305'
  ].join(':'),
  ecdhCurve: 'X25519MLKEM768:X25519:prime256v1:secp384r1'
} as const
