# A Homebrew formula, installed from the source archive that scripts/wheels puts into dist/wheels of this clone:
#     brew install --formula deploy/homebrew/pocketbert.rb
# In a tap, url and sha256 are those of a release.
class Pocketbert < Formula
  include Language::Python::Virtualenv

  archive = File.expand_path("../../dist/wheels/pocketbert-0.1.0.tar.gz", __dir__)
  desc "Small BERTs, fast on ordinary machines, from training to inference"
  homepage "https://pypi.org/project/pocketbert/"
  url "file://#{archive}"
  sha256 Digest::SHA256.file(archive).hexdigest
  license "Apache-2.0"

  depends_on "cmake" => :build
  depends_on "ninja" => :build
  depends_on "python@3.13"

  def install
    virtualenv_create(libexec, "python3.13")
    # What it needs comes as wheels, in the versions that are known to work together.
    system "python3.13", "-m", "pip", "--python=#{libexec}/bin/python", "install", "-c", "constraints.txt", "."
    bin.install_symlink libexec/"bin/pocketbert"
  end

  test do
    assert_match "positive", shell_output("#{bin}/pocketbert classify 'A warm, clever film.'")
    system libexec/"bin/python", "-c", "from pocketbert.runtime.core import library; library()"
  end
end
