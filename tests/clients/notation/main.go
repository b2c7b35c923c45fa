// Command notation-client signs, verifies and lists Notary Project signatures with the notation-go library:
//
//	notation-client FOLDER http|https sign cose|jws REFERENCE
//	notation-client FOLDER http|https verify|list REFERENCE
//
// FOLDER holds the key, made by the first `sign`, and the trust store that goes with it.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
)

var envelopes = map[string]string{"cose": cose.MediaTypeEnvelope, "jws": jws.MediaTypeEnvelope}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "notation-client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, words []string) error {
	if len(words) < 4 {
		return fmt.Errorf("expected FOLDER http|https VERB … REFERENCE, got %q", words)
	}
	folder, scheme, verb, reference := words[0], words[1], words[2], words[len(words)-1]
	dir.UserConfigDir = folder
	target, err := remote.NewRepository(reference)
	if err != nil {
		return err
	}
	target.PlainHTTP = scheme == "http"
	repository := registry.NewRepository(target)
	switch verb {
	case "sign":
		return sign(ctx, folder, envelopes[words[3]], repository, reference)
	case "verify":
		return verify(ctx, repository, reference)
	case "list":
		return list(ctx, repository, reference)
	}
	return fmt.Errorf("no verb %q", verb)
}

func sign(ctx context.Context, folder, envelope string, repository registry.Repository, reference string) error {
	key, certificate, err := keyOf(folder)
	if err != nil {
		return err
	}
	genericSigner, err := signer.NewGenericSigner(key, []*x509.Certificate{certificate})
	if err != nil {
		return err
	}
	_, err = notation.Sign(ctx, genericSigner, repository, notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: envelope},
		ArtifactReference: reference,
	})
	return err
}

// verify holds every signature against the one certificate in the trust store.
func verify(ctx context.Context, repository registry.Repository, reference string) error {
	policy := trustpolicy.Document{
		Version: "1.0",
		TrustPolicies: []trustpolicy.TrustPolicy{{
			Name:                  "everything",
			RegistryScopes:        []string{"*"},
			SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
			TrustStores:           []string{"ca:clients"},
			TrustedIdentities:     []string{"*"},
		}},
	}
	policyVerifier, err := verifier.New(&policy, truststore.NewX509TrustStore(dir.ConfigFS()), nil)
	if err != nil {
		return err
	}
	subject, _, err := notation.Verify(ctx, policyVerifier, repository, notation.VerifyOptions{
		ArtifactReference:    reference,
		MaxSignatureAttempts: 10,
	})
	if err == nil {
		fmt.Println(subject.Digest)
	}
	return err
}

func list(ctx context.Context, repository registry.Repository, reference string) error {
	subject, err := repository.Resolve(ctx, reference)
	if err != nil {
		return err
	}
	return repository.ListSignatures(ctx, subject, func(signatures []ocispec.Descriptor) error {
		for _, signature := range signatures {
			// Read, so that what is listed is also there.
			if _, _, err := repository.FetchSignatureBlob(ctx, signature); err != nil {
				return err
			}
			fmt.Println(signature.Digest)
		}
		return nil
	})
}

// keyOf reads the folder's key, or makes it with a certificate that is allowed to sign code and vouches for itself.
func keyOf(folder string) (crypto.PrivateKey, *x509.Certificate, error) {
	keyFile := filepath.Join(folder, "key.pem")
	certificateFile := filepath.Join(folder, "truststore", "x509", "ca", "clients", "certificate.pem")
	if _, err := os.Stat(keyFile); os.IsNotExist(err) {
		if err := makeKey(keyFile, certificateFile); err != nil {
			return nil, nil, err
		}
	}
	keyBytes, err := readPEM(keyFile)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBytes)
	if err != nil {
		return nil, nil, err
	}
	certificateBytes, err := readPEM(certificateFile)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(certificateBytes)
	return key, certificate, err
}

func makeKey(keyFile, certificateFile string) error {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "clients", Organization: []string{"Twinport"}, Country: []string{"NL"}, Province: []string{"NH"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(48 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(keyFile, "PRIVATE KEY", keyBytes); err != nil {
		return err
	}
	return writePEM(certificateFile, "CERTIFICATE", certificate)
}

func readPEM(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", file)
	}
	return block.Bytes, nil
}

func writePEM(file, kind string, bytes []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600)
}
