// An OpenID provider for the end-to-end tests: service accounts by the client
// credentials grant, access tokens after RFC 9068 (typ at+jwt).
//
//   node server.mjs PORT LOGIN...        PORT 0: any
//
// Prints the issuer URL on a line of its own when it is ready. Its signing key
// is new at each start, so a restart on the same port is a key rotation. Each
// login is a client with the secret that SALLYPORT_E2E_SECRET holds, and so is
// LOGIN.certificate, whose tokens are bound to the certificate in the header
// X-Client-Certificate (base64 of DER), as a proxy that ends TLS would send it.
// A DPoP proof binds a token of either to its key (on by default).
import { createServer } from 'node:http';
import { randomUUID, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [port, ...logins] = process.argv.slice(2);
const ofCertificate = '.certificate';
const secret = process.env.SALLYPORT_E2E_SECRET;

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };

const server = createServer();
server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    jwks: { keys: [key] },
    clients: logins.flatMap((login) => [false, true].map((certificate) => ({
      client_id: certificate ? login + ofCertificate : login,
      client_secret: secret,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      tls_client_certificate_bound_access_tokens: certificate,
    }))),
    scopes: ['exec'],
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        getCertificate(ctx) {
          const der = ctx.get('x-client-certificate');
          return der ? new X509Certificate(Buffer.from(der, 'base64')).toString() : undefined;
        },
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'https://sallyport.test',
        getResourceServerInfo: () => ({
          scope: 'exec',
          audience: 'sallyport',
          accessTokenTTL: 600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    extraTokenClaims: (ctx, token) => ({ preferred_username: token.clientId.replace(ofCertificate, '') }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
